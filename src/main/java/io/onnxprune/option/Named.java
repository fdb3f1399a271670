// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.option;

import java.lang.annotation.ElementType;
import java.lang.annotation.Retention;
import java.lang.annotation.RetentionPolicy;
import java.lang.annotation.Target;

/** The name of a {@link Part} in recipes. */
@Retention(RetentionPolicy.RUNTIME)
@Target(ElementType.TYPE)
public @interface Named {
    /** The name. */
    String value();

    /** One sentence for help and documentation. */
    String summary();
}
