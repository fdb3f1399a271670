// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.option;

import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;

/**
 * Declares a record component as an option. Its key is the component's name in kebab case ({@code skipFirst} is
 * {@code skip-first}); its default is the value that the record's constructor without parameters gives it. The type decides
 * which values it takes: see {@link OptionSet}.
 */
@Retention(RetentionPolicy.RUNTIME)
@Target(ElementType.RECORD_COMPONENT)
public @interface Option {
    /** One sentence for help and documentation. */
    String value();

    /** The key, where the component's name does not say it. */
    String key() default "";

    /** The smallest number. */
    double min() default 0;

    /** Numbers are less than this. */
    double below() default Double.POSITIVE_INFINITY;

    /** A phrase for the values of a type with a parser of its own, to follow "must be". */
    String values() default "";
}
