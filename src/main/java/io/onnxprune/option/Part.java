// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.option;

/**
 * Something that a recipe can name: a pass, an importance metric, a selection, a weight update. Each is a public record with
 * {@link Named}, whose components are its {@link Option}s, and with a public constructor without parameters that gives the
 * defaults. Jars add parts of their own by {@code META-INF/services} files (see {@link Extensions}).
 */
public interface Part {
    /** The name of this part in recipes. */
    default String partName() {
        return nameOf(getClass());
    }

    /** The name of a kind of part in recipes. */
    static String nameOf(Class<?> type) {
        Named named = type.getAnnotation(Named.class);
        if (named == null) {
            throw new IllegalArgumentException(type.getName() + " has no @Named");
        }
        return named.value();
    }
}
