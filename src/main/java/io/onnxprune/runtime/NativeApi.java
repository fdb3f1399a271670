// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import com.sun.jna.Function;
import com.sun.jna.Memory;
import com.sun.jna.Native;
import com.sun.jna.NativeLibrary;
import com.sun.jna.Pointer;
import com.sun.jna.StringArray;
import com.sun.jna.ptr.IntByReference;
import com.sun.jna.ptr.LongByReference;
import com.sun.jna.ptr.PointerByReference;
import io.onnxprune.device.NativeAccess;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * Functions of ONNX Runtime's C API that its Java API lacks: the CUDA provider, which Microsoft's JNI library for the
 * CPU cannot append, and the binding of inputs and outputs to memory of a device.
 *
 * <p>The API is a structure of function pointers (onnxruntime_c_api.h). Functions are only ever added at its end, so
 * the positions here hold for every version from 1.11 on.
 */
final class NativeApi {
    /** The version of the API that has all functions here. */
    private static final int VERSION = 11;

    private static final int GET_ERROR_MESSAGE = 2;
    private static final int CREATE_TENSOR_WITH_DATA = 49;
    private static final int GET_TENSOR_MUTABLE_DATA = 51;
    private static final int GET_TENSOR_ELEMENT_TYPE = 60;
    private static final int GET_DIMENSIONS_COUNT = 61;
    private static final int GET_DIMENSIONS = 62;
    private static final int GET_TENSOR_TYPE_AND_SHAPE = 65;
    private static final int CREATE_MEMORY_INFO = 68;
    private static final int ALLOCATOR_FREE = 76;
    private static final int GET_DEFAULT_ALLOCATOR = 78;
    private static final int RELEASE_STATUS = 93;
    private static final int RELEASE_MEMORY_INFO = 94;
    private static final int RELEASE_VALUE = 96;
    private static final int RELEASE_TENSOR_TYPE_AND_SHAPE = 99;
    private static final int RUN_WITH_BINDING = 133;
    private static final int CREATE_IO_BINDING = 134;
    private static final int RELEASE_IO_BINDING = 135;
    private static final int BIND_INPUT = 136;
    private static final int BIND_OUTPUT = 137;
    private static final int BIND_OUTPUT_TO_DEVICE = 138;
    private static final int GET_BOUND_OUTPUT_VALUES = 140;
    private static final int CLEAR_BOUND_OUTPUTS = 142;
    private static final int CREATE_AND_REGISTER_ALLOCATOR = 144;
    private static final int CREATE_ARENA_CFG = 156;
    private static final int RELEASE_ARENA_CFG = 157;
    private static final int UNREGISTER_ALLOCATOR = 177;
    private static final int APPEND_CUDA = 204;
    private static final int CREATE_CUDA_OPTIONS = 205;
    private static final int UPDATE_CUDA_OPTIONS = 206;
    private static final int RELEASE_CUDA_OPTIONS = 208;

    /** OrtDeviceAllocator and OrtMemTypeDefault. */
    private static final int DEVICE_ALLOCATOR = 0;

    private static final int DEFAULT_MEMORY = 0;

    /** OrtArenaAllocator. */
    private static final int ARENA_ALLOCATOR = 1;

    /** The arena takes what is requested, not the next power of two. */
    private static final int AS_REQUESTED = 1;

    private static final int USUAL = -1;

    private final Pointer functions;

    /** An error that the C API returned. */
    static final class Failure extends Exception {
        private static final long serialVersionUID = 1;

        Failure(String message) {
            super(message);
        }
    }

    private NativeApi(Pointer functions) {
        this.functions = functions;
    }

    /**
     * The API of a library.
     *
     * @param core libonnxruntime, which is loaded already
     * @throws Failure when it is older than version 1.11
     */
    static NativeApi of(Path core) throws Failure {
        NativeAccess.load();
        NativeLibrary library = NativeLibrary.getInstance(core.toString());
        Pointer base = library.getFunction("OrtGetApiBase").invokePointer(new Object[0]);
        Pointer functions = Function.getFunction(base.getPointer(0)).invokePointer(new Object[] {VERSION});
        if (functions == null) {
            throw new Failure(core + " is older than ONNX Runtime 1.11");
        }
        return new NativeApi(functions);
    }

    private Function function(int position) {
        return Function.getFunction(functions.getPointer((long) position * Native.POINTER_SIZE));
    }

    private void call(int position, Object... arguments) throws Failure {
        Pointer status = function(position).invokePointer(arguments);
        if (status != null) {
            String message = function(GET_ERROR_MESSAGE)
                    .invokePointer(new Object[] {status})
                    .getString(0, StandardCharsets.UTF_8.name());
            function(RELEASE_STATUS).invokeVoid(new Object[] {status});
            throw new Failure(message);
        }
    }

    private Pointer create(int position, Object... arguments) throws Failure {
        PointerByReference result = new PointerByReference();
        Object[] all = new Object[arguments.length + 1];
        System.arraycopy(arguments, 0, all, 0, arguments.length);
        all[arguments.length] = result;
        call(position, all);
        return result.getValue();
    }

    /**
     * Appends the CUDA provider to the options of a session.
     *
     * @param sessionOptions address of the OrtSessionOptions
     * @param options the provider's options by name
     */
    void appendCuda(long sessionOptions, Map<String, String> options) throws Failure {
        Pointer cuda = create(CREATE_CUDA_OPTIONS);
        try {
            // The array of strings keeps the memory of its elements alive.
            StringArray keys = strings(options.keySet().toArray(String[]::new));
            StringArray values = strings(options.values().toArray(String[]::new));
            call(UPDATE_CUDA_OPTIONS, cuda, keys, values, (long) options.size());
            call(APPEND_CUDA, new Pointer(sessionOptions), cuda);
        } finally {
            function(RELEASE_CUDA_OPTIONS).invokeVoid(new Object[] {cuda});
        }
    }

    /**
     * Registers an allocator of the memory of this process that hands out a limited number of bytes, for the sessions
     * that are created until it is {@link #unregisterAllocator unregistered}.
     *
     * @param environment address of the OrtEnv
     * @return a description of the memory, for unregistering
     */
    Pointer registerAllocator(long environment, long limit) throws Failure {
        Pointer info = create(CREATE_MEMORY_INFO, "Cpu", ARENA_ALLOCATOR, 0, DEFAULT_MEMORY);
        Pointer arena = create(CREATE_ARENA_CFG, limit, AS_REQUESTED, USUAL, USUAL);
        try {
            call(CREATE_AND_REGISTER_ALLOCATOR, new Pointer(environment), info, arena);
            return info;
        } finally {
            function(RELEASE_ARENA_CFG).invokeVoid(new Object[] {arena});
        }
    }

    void unregisterAllocator(long environment, Pointer info) throws Failure {
        call(UNREGISTER_ALLOCATOR, new Pointer(environment), info);
        releaseMemoryInfo(info);
    }

    private static StringArray strings(String[] values) {
        return new StringArray(values, StandardCharsets.UTF_8.name());
    }

    /** A description of the memory of a device, "Cpu" or "Cuda"; the caller releases it. */
    Pointer memoryInfo(String name, int device) throws Failure {
        return create(CREATE_MEMORY_INFO, name, DEVICE_ALLOCATOR, device, DEFAULT_MEMORY);
    }

    void releaseMemoryInfo(Pointer info) {
        function(RELEASE_MEMORY_INFO).invokeVoid(new Object[] {info});
    }

    /**
     * A tensor over memory that the caller keeps; the caller releases it.
     *
     * @param type element type as in ONNX's TensorProto
     */
    Pointer tensor(Pointer memoryInfo, Pointer data, long bytes, long[] shape, int type) throws Failure {
        Object dims = shape.length == 0 ? Pointer.NULL : shape;
        return create(CREATE_TENSOR_WITH_DATA, memoryInfo, data, bytes, dims, (long) shape.length, type);
    }

    void releaseValue(Pointer value) {
        function(RELEASE_VALUE).invokeVoid(new Object[] {value});
    }

    /** The address of the first element of a tensor. */
    long address(Pointer value) throws Failure {
        return Pointer.nativeValue(create(GET_TENSOR_MUTABLE_DATA, value));
    }

    /** The element type of a tensor as in ONNX's TensorProto, followed by its extents. */
    long[] typeAndShape(Pointer value) throws Failure {
        Pointer info = create(GET_TENSOR_TYPE_AND_SHAPE, value);
        try {
            IntByReference type = new IntByReference();
            LongByReference rank = new LongByReference();
            call(GET_TENSOR_ELEMENT_TYPE, info, type);
            call(GET_DIMENSIONS_COUNT, info, rank);
            long[] shape = new long[(int) rank.getValue()];
            if (shape.length > 0) {
                call(GET_DIMENSIONS, info, shape, (long) shape.length);
            }
            long[] result = new long[shape.length + 1];
            result[0] = type.getValue();
            System.arraycopy(shape, 0, result, 1, shape.length);
            return result;
        } finally {
            function(RELEASE_TENSOR_TYPE_AND_SHAPE).invokeVoid(new Object[] {info});
        }
    }

    /** A binding of the inputs and outputs of a session; the caller releases it. */
    Pointer binding(long session) throws Failure {
        return create(CREATE_IO_BINDING, new Pointer(session));
    }

    void releaseBinding(Pointer binding) {
        function(RELEASE_IO_BINDING).invokeVoid(new Object[] {binding});
    }

    void bindInput(Pointer binding, String name, Pointer value) throws Failure {
        call(BIND_INPUT, binding, utf8(name), value);
    }

    void bindOutput(Pointer binding, String name, Pointer value) throws Failure {
        call(BIND_OUTPUT, binding, utf8(name), value);
    }

    /** Binds an output whose shape is not known to memory that the runtime allocates. */
    void bindOutputToMemory(Pointer binding, String name, Pointer memoryInfo) throws Failure {
        call(BIND_OUTPUT_TO_DEVICE, binding, utf8(name), memoryInfo);
    }

    void clearOutputs(Pointer binding) {
        function(CLEAR_BOUND_OUTPUTS).invokeVoid(new Object[] {binding});
    }

    /** Runs a session on what is bound and waits until it is done. */
    void run(long session, Pointer binding) throws Failure {
        call(RUN_WITH_BINDING, new Pointer(session), Pointer.NULL, binding);
    }

    /** The values of the bound outputs in the order in which they were bound; the caller releases each. */
    List<Pointer> outputs(Pointer binding) throws Failure {
        Pointer allocator = create(GET_DEFAULT_ALLOCATOR);
        PointerByReference values = new PointerByReference();
        LongByReference count = new LongByReference();
        call(GET_BOUND_OUTPUT_VALUES, binding, allocator, values, count);
        List<Pointer> result = new ArrayList<>();
        if (count.getValue() > 0) {
            result.addAll(List.of(values.getValue().getPointerArray(0, (int) count.getValue())));
            call(ALLOCATOR_FREE, allocator, values.getValue());
        }
        return result;
    }

    private static Memory utf8(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        Memory memory = new Memory(bytes.length + 1L);
        memory.write(0, bytes, 0, bytes.length);
        memory.setByte(bytes.length, (byte) 0);
        return memory;
    }
}
