// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtSession;
import java.lang.reflect.Field;

/**
 * Addresses of native objects behind ONNX Runtime's Java classes. The classes keep them to themselves, and their API
 * lacks what {@link NativeApi} does with them.
 */
final class NativeHandle {
    private static final String FIELD = "nativeHandle";

    private NativeHandle() {}

    /** The address of the OrtSession. */
    static long of(OrtSession session) {
        return read(OrtSession.class, session);
    }

    /** The address of the OrtSessionOptions. */
    static long of(OrtSession.SessionOptions options) {
        return read(OrtSession.SessionOptions.class, options);
    }

    /** The address of the OrtEnv. */
    static long of(OrtEnvironment environment) {
        return read(OrtEnvironment.class, environment);
    }

    private static long read(Class<?> type, Object object) {
        try {
            Field handle = type.getDeclaredField(FIELD);
            handle.setAccessible(true);
            return handle.getLong(object);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException("ONNX Runtime's Java API has no " + type.getSimpleName() + '.' + FIELD, e);
        }
    }
}
