// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OnnxJavaType;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OnnxTensorLike;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoggingLevel;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.OrtSession.SessionOptions;
import com.sun.jna.Pointer;
import io.onnxprune.device.CudaDevice;
import io.onnxprune.device.Device;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * The ONNX Runtime of this process. It opens models as {@link Session}s that all run on the same provider,
 * deterministically and without terminal output. The runtime's messages are reported as exceptions.
 */
public final class OnnxRuntime implements AutoCloseable {
    /** Largest tensor in bytes that can be passed from Java, because buffers have int sizes. */
    private static final long MAX_TENSOR_BYTES = Integer.MAX_VALUE - 64L;

    /**
     * The optimizers that widen half-precision weights for good: by folding their casts, by sharing them, or by
     * replacing float16 initializers. The last one also crashes if an initializer has two casts.
     */
    static final String WIDENING_OPTIMIZERS =
            "ConstantFolding;CommonSubexpressionElimination;FuseFp16InitializerToFp32NodeTransformer";

    private final OrtEnvironment environment;
    private final RuntimeOptions options;
    /** The device whose memory calibration works in; empty for this process's memory. */
    private final Optional<Device> device;

    private final DeviceSessions deviceSessions = new DeviceSessions(this);

    private OnnxRuntime(OrtEnvironment environment, RuntimeOptions options, Optional<Device> device) {
        this.environment = environment;
        this.options = options;
        this.device = device;
    }

    /**
     * Loads ONNX Runtime. Its native library is unpacked on the first use on a machine.
     *
     * @throws UserException when the library cannot be loaded or the provider cannot be used
     */
    public static OnnxRuntime open(RuntimeOptions options) {
        OrtEnvironment environment = load(options);
        if (options.provider() == RuntimeOptions.Provider.CPU) {
            return new OnnxRuntime(environment, options, Optional.empty());
        }
        CudaProvider.check(options);
        return new OnnxRuntime(environment, options, Optional.of(CudaDevice.open(options.device())));
    }

    /**
     * Loads ONNX Runtime like {@link #open}, for calibration in the memory of {@code device}. On the CPU it can be a
     * {@link io.onnxprune.device.HostDevice}, so that what runs on a GPU can be compared with what runs on the CPU.
     *
     * @throws UserException when the library cannot be loaded
     */
    public static OnnxRuntime openOn(Device device, RuntimeOptions options) {
        return new OnnxRuntime(load(options), options, Optional.of(device));
    }

    private static OrtEnvironment load(RuntimeOptions options) {
        NativeLibrary.prepare(options);
        try {
            return OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL, "onnx-prune");
        } catch (LinkageError | IllegalStateException | NullPointerException e) {
            throw new UserException("the native ONNX Runtime cannot be loaded: %s".formatted(Failures.root(e)), e);
        }
    }

    /** The version of the Java classes and the bundled native library, for example {@code 1.28.0}. */
    public String version() {
        return environment.getVersion();
    }

    /** Whether the native library can train; recovery training needs this. */
    public boolean trainingEnabled() {
        return environment.isTrainingEnabled();
    }

    /** The device whose memory calibration works in; empty where that is this process's memory. */
    public Optional<Device> device() {
        return device;
    }

    /** Weights in the memory of the {@link #device}, for several sessions of {@link #open(Model, DeviceWeights)}. */
    public DeviceWeights weights(long budget) {
        return new DeviceWeights(device.orElseThrow(), budget);
    }

    /**
     * A tensor of zeros in the memory that calibration works in.
     *
     * @throws UserException when the device has too little free memory
     */
    public RuntimeTensor zeros(DType dtype, long[] shape) {
        return device.isPresent() ? DeviceTensor.zeros(device.get(), dtype, shape) : HostTensor.zeros(dtype, shape);
    }

    /** The options that models are run with. */
    public RuntimeOptions options() {
        return options;
    }

    /**
     * Whether tensors of this type can be fed or supplied as initializers. Initializers of other types must stay in
     * the model.
     */
    public static boolean accepts(DType dtype) {
        return switch (dtype) {
            case FLOAT, DOUBLE, FLOAT16, BFLOAT16, INT8, UINT8, INT16, INT32, INT64, BOOL -> true;
            default -> false;
        };
    }

    /**
     * Opens a model file. External data is read from its folder.
     *
     * @param optimize whether the runtime may fuse operators and fold constants; if not, it runs the graph as written
     * @throws UserException when the file does not exist or ONNX Runtime rejects the model
     */
    public Session open(Path model, boolean optimize) {
        return open(model, Optional.empty(), optimize);
    }

    /**
     * Opens a model file, with an adapter that supplies its optional inputs.
     *
     * @param model the model file; external data is read from its folder
     * @param adapter an adapter file of ONNX Runtime (.onnx_adapter) for all runs; empty for none
     * @param optimize whether the runtime may fuse operators and fold constants; if not, it runs the graph as written
     * @throws UserException when a file does not exist or ONNX Runtime rejects it
     */
    public Session open(Path model, Optional<Path> adapter, boolean optimize) {
        if (!Files.isRegularFile(model)) {
            throw new UserException("the model file " + model + " does not exist; give the path of an ONNX model");
        }
        // The runtime does not check what it reads: circles of functions would end the process.
        Model read = ModelReader.read(model);
        if (!NativePath.isPlain(model.getFileName()) || needsForm(read)) {
            return open(read, adapter, optimize);
        }
        String place = NativePath.of(model);
        return create(model.toString(), Map.of(), adapter, optimize, o -> environment.createSession(place, o));
    }

    /**
     * Opens a serialised model whose weights are supplied separately.
     *
     * @param model a {@code ModelProto} of less than 2 GiB
     * @param initializers values by name for initializers of the main graph whose {@code data_location} is EXTERNAL,
     *     in the file {@link ModelWriter#SUPPLIED}. Direct buffers, also memory-mapped files, are used in place on the
     *     CPU, so the caller must not change them while the session is open. Buffers that are not aligned to their
     *     element size are copied
     * @param optimize whether the runtime may fuse operators and fold constants; if not, it runs the graph as written
     * @throws UserException when ONNX Runtime rejects the model or a tensor
     */
    public Session open(byte[] model, Map<String, HostTensor> initializers, boolean optimize) {
        return create("in memory", initializers, Optional.empty(), optimize, o -> environment.createSession(model, o));
    }

    /**
     * Opens a serialised model without supplied weights that may ask for any amount of memory. It runs as written.
     *
     * @param memory bytes of all values of a run; a run that needs more fails with an {@link
     *     io.onnxprune.diag.OutOfMemoryException}. Without a limit where the place of the native library is not known
     * @throws UserException when ONNX Runtime rejects the model
     */
    public Session openWithin(byte[] model, long memory) {
        NativeApi api;
        try {
            api = NativeApi.of(NativeLibrary.core());
        } catch (NativeApi.Failure | UserException e) {
            return open(model, Map.of(), false);
        }
        synchronized (OnnxRuntime.class) {
            try {
                long handle = NativeHandle.of(environment);
                Pointer registered = api.registerAllocator(handle, memory);
                try {
                    return create("in memory", Map.of(), Optional.empty(), false, o -> {
                        o.addConfigEntry("session.use_env_allocators", "1");
                        return environment.createSession(model, o);
                    });
                } finally {
                    api.unregisterAllocator(handle, registered);
                }
            } catch (NativeApi.Failure e) {
                throw failure("ONNX Runtime cannot limit the memory of a model", e);
            }
        }
    }

    /**
     * Opens a model in memory. Its weights are used in place, in the file that they are mapped from.
     *
     * @param optimize whether the runtime may fuse operators and fold constants; if not, it runs the graph as written
     * @throws UserException when ONNX Runtime rejects the model
     */
    public Session open(Model model, boolean optimize) {
        return open(model, Optional.empty(), optimize);
    }

    /**
     * Opens a model in memory, with an adapter that supplies its optional inputs.
     *
     * @param adapter an adapter file of ONNX Runtime (.onnx_adapter) for all runs; empty for none
     * @param optimize whether the runtime may fuse operators and fold constants; if not, it runs the graph as written
     * @throws UserException when the adapter does not exist or ONNX Runtime rejects it or the model
     */
    public Session open(Model model, Optional<Path> adapter, boolean optimize) {
        SuppliedModel supplied = SuppliedModel.of(runnable(model));
        return create(
                "in memory",
                supplied.weights(),
                adapter,
                optimize,
                o -> environment.createSession(supplied.graph(), o));
    }

    /**
     * Opens a model in memory for runs on tensors in the memory of the {@link #device}. Nothing is folded from the
     * weights, so half-precision weights are widened by the device, in each run.
     *
     * @param weights holds the weights of this and other sessions
     * @throws UserException when ONNX Runtime rejects the model, or the device has too little memory for the weights
     */
    public Session open(Model model, DeviceWeights weights) {
        return deviceSessions.open(model, weights);
    }

    /** The model in the form that the provider of this runtime runs. */
    Model runnable(Model model) {
        return needsForm(model) ? CpuForms.of(model) : model;
    }

    private boolean needsForm(Model model) {
        return options.provider() == RuntimeOptions.Provider.CPU && CpuForms.isNeeded(model);
    }

    /** Closes sessions that are kept for later use, to give their memory back. */
    public void closeIdle() {
        deviceSessions.close();
    }

    /**
     * Opens a serialised model in a direct buffer, from its position to its limit. The weights are supplied as in
     * {@link #open(byte[], Map, boolean)}.
     *
     * @throws UserException when ONNX Runtime rejects the model or a tensor
     */
    public Session open(ByteBuffer model, Map<String, HostTensor> initializers, boolean optimize) {
        return create("in memory", initializers, Optional.empty(), optimize, o -> environment.createSession(model, o));
    }

    /**
     * Checks that the native library can train. To be called before other work.
     *
     * @throws UserException when it cannot; the message says how to get a library that can
     */
    public void requireTraining() {
        if (!trainingEnabled()) {
            throw new UserException(
                    "the native ONNX Runtime library that was loaded cannot train; add"
                            + " org.bytedeco:onnxruntime with the classifier of this platform, or give one that can by --ort-library");
        }
    }

    /**
     * Opens a model for training. The training and the evaluation graph use frozen weights in place, in the file that
     * they are mapped from; the kernels' prepacked copies are switched off.
     *
     * @param keepsHalf whether casts of half-precision weights run in each step, so that the weights stay half
     * @throws UserException when the native library cannot train or rejects a file
     */
    public TrainingSession train(TrainingSession.Files files, boolean keepsHalf) {
        requireTraining();
        try (SessionOptions sessionOptions = sessionOptions(true)) {
            sessionOptions.addConfigEntry("session.disable_prepacking", "1");
            if (keepsHalf) {
                sessionOptions.addConfigEntry("optimization.disable_specified_optimizers", WIDENING_OPTIMIZERS);
            }
            return new TrainingSession(
                    this,
                    environment.createTrainingSession(
                            NativePath.of(files.checkpoint()),
                            NativePath.of(files.training()),
                            NativePath.of(files.evaluation()),
                            NativePath.of(files.optimizer()),
                            sessionOptions));
        } catch (OrtException e) {
            throw failure("ONNX Runtime cannot prepare the training of " + files.training(), e);
        }
    }

    private interface Factory {
        OrtSession create(SessionOptions options) throws OrtException;
    }

    private Session create(
            String name,
            Map<String, HostTensor> initializers,
            Optional<Path> adapter,
            boolean optimize,
            Factory factory) {
        Optional<LoadedAdapter> loaded = adapter.map(LoadedAdapter::load);
        List<OnnxTensor> held = new ArrayList<>();
        try (SessionOptions sessionOptions = sessionOptions(optimize)) {
            Map<String, OnnxTensorLike> weights = new HashMap<>();
            for (Map.Entry<String, HostTensor> initializer : initializers.entrySet()) {
                OnnxTensor tensor = toOnnx(initializer.getKey(), initializer.getValue());
                held.add(tensor);
                weights.put(initializer.getKey(), tensor);
            }
            supply(sessionOptions, weights, optimize || options.provider() == RuntimeOptions.Provider.CUDA);
            return new Session(this, factory.create(sessionOptions), held, loaded);
        } catch (OrtException e) {
            held.forEach(OnnxTensor::close);
            loaded.ifPresent(LoadedAdapter::close);
            throw failure("ONNX Runtime cannot load the model " + name, e);
        } catch (UserException e) {
            held.forEach(OnnxTensor::close);
            loaded.ifPresent(LoadedAdapter::close);
            throw e;
        }
    }

    /**
     * Passes the weights to a session in both of the runtime's ways, because each has a limitation. External
     * initializers are visible to shape inference and constant folding, but are copied when the session is created.
     * Shared initializers are used in place by the kernels, but folding then looks for the file. Without optimisation
     * nothing is folded, so shared initializers suffice; the file that the model names for them is never read, but has
     * to be there. The kernels' prepacked copies are switched off to save memory. Kernels of CUDA cannot use memory of this process, and sessions fail with shared initializers there.
     *
     * @param external whether the weights are passed as external initializers too
     */
    private void supply(SessionOptions target, Map<String, OnnxTensorLike> weights, boolean external)
            throws OrtException {
        if (weights.isEmpty()) {
            return;
        }
        if (external) {
            target.addExternalInitializers(weights);
        }
        if (options.provider() == RuntimeOptions.Provider.CUDA) {
            return;
        }
        for (Map.Entry<String, OnnxTensorLike> weight : weights.entrySet()) {
            target.addInitializer(weight.getKey(), weight.getValue());
        }
        target.addConfigEntry("session.disable_prepacking", "1");
        target.addConfigEntry(
                "session.model_external_initializers_file_folder_path",
                SuppliedModel.folder().toString());
    }

    /** Options of every session of this process, also of training sessions. */
    SessionOptions sessionOptions(boolean optimize) throws OrtException {
        SessionOptions result = new SessionOptions();
        result.setOptimizationLevel(optimize ? SessionOptions.OptLevel.ALL_OPT : SessionOptions.OptLevel.NO_OPT);
        // Shapes change between runs, so memory patterns for each shape would only take memory.
        result.setMemoryPatternOptimization(false);
        if (!optimize) {
            // These sessions are compared, not timed. The arena grows by powers of two and keeps its memory.
            result.setCPUArenaAllocator(false);
        }
        result.setDeterministicCompute(true);
        result.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL);
        if (options.threads() > 0) {
            result.setIntraOpNumThreads(options.threads());
        }
        if (options.provider() == RuntimeOptions.Provider.CUDA) {
            CudaProvider.append(result, options, optimize);
        }
        return result;
    }

    OrtEnvironment environment() {
        return environment;
    }

    /**
     * A view of {@code tensor} for the runtime. It must be closed, and the tensor must stay reachable until then.
     *
     * @param name name of the tensor, for messages
     * @throws UserException when the type or the size is not supported
     */
    OnnxTensor toOnnx(String name, HostTensor tensor) {
        if (!accepts(tensor.dtype())) {
            throw new UserException("ONNX Runtime's Java API cannot take the tensor %s of type %s; keep it in the model"
                    .formatted(name, tensor.dtype()));
        }
        if (tensor.byteSize() > MAX_TENSOR_BYTES) {
            throw new UserException("the tensor %s has %d bytes, more than a Java buffer can hand over; keep it in the"
                            .formatted(name, tensor.byteSize())
                    + " model's external data");
        }
        ByteBuffer bytes = aligned(tensor);
        try {
            return OnnxTensor.createTensor(
                    environment,
                    bytes.order(ByteOrder.nativeOrder()),
                    tensor.shape(),
                    OnnxJavaType.valueOf(tensor.dtype().name()));
        } catch (OrtException e) {
            throw failure("ONNX Runtime cannot take the tensor " + name, e);
        }
    }

    /** The elements of a tensor in a direct buffer. Vectorised kernels require aligned elements and crash without. */
    static ByteBuffer aligned(HostTensor tensor) {
        ByteBuffer bytes = tensor.bytes();
        return bytes.isDirect() && bytes.alignmentOffset(0, tensor.dtype().bits() / 8) == 0
                ? bytes
                : ByteBuffer.allocateDirect(bytes.remaining()).put(bytes).flip();
    }

    /** A message of one sentence that includes the runtime's own reason, or says how to use less memory. */
    static UserException failure(String what, Exception cause) {
        return Failures.of(what, cause);
    }

    /** Closes idle sessions. Callers close their own, and the library stays as long as the process. */
    @Override
    public void close() {
        deviceSessions.close();
    }
}
