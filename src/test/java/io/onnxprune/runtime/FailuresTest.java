// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.OutOfMemoryException;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.Node;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class FailuresTest {
    /** A number of elements that no machine can allocate, even one that overcommits memory. */
    private static final long ABSURD = 1L << 48;

    private static final Path FOLDER = Path.of("/somewhere");

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    void outOfMemoryNamesTheOptionsToLower(boolean optimize) {
        Node fill = Node.of("fill", "ConstantOfShape", List.of("extents"), List.of("o"), Map.of());
        Graph graph = Graphs.graph(
                List.of(Graphs.value("extents", DType.INT64, 1)), List.of(Graphs.floats("o", "n")), Map.of(), fill);
        OnnxRuntime runtime = OnnxRuntime.open(RuntimeOptions.cpu());
        try (Session session = runtime.open(Graphs.model(graph), optimize)) {
            assertThatThrownBy(() -> session.run(extents(ABSURD), List.of("o")))
                    .isInstanceOf(UserException.class)
                    .hasMessageStartingWith("out of memory: ")
                    .hasMessageContaining("at node \"fill\" (ConstantOfShape)")
                    .hasMessageEndingWith("lower --memory, --seq-len, --samples or --threads")
                    .hasMessageNotContaining("\n");
            try (Outputs small = session.run(extents(3), List.of("o"))) {
                assertThat(small.tensor("o").toFloats()).containsExactly(0, 0, 0);
            }
        }
    }

    private static Map<String, HostTensor> extents(long value) {
        return Map.of("extents", HostTensor.ofInt64(new long[] {1}, value));
    }

    /** Messages of ONNX Runtime 1.28 and of the libraries that it uses. */
    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            bfc_arena.cc:358 void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) Failed to allocate memory for requested buffer of size 640 | 640 bytes
            bfc_arena.cc:1 Available memory of 12 is smaller than requested bytes of 99  | 99 bytes
            CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=f ; expr=cudaMalloc | lower
            CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate      | lower
            std::bad_alloc                                                                | lower
            """)
    void everyAllocatorsMessageIsKnown(String message, String part) {
        assertThat(Failures.of("the run failed", new IllegalStateException(message)))
                .hasMessageStartingWith("out of memory: the run failed")
                .hasMessageContaining(part);
    }

    @Test
    void outOfDeviceMemoryNamesTheDevicesOption() {
        String message = "Non-zero status code returned while running MatMul node. Name:'mm' Status Message:"
                + " bfc_arena.cc:358 AllocateRawInternal Failed to allocate memory for requested buffer of size 640";
        assertThat(Failures.onDevice("it failed", new IllegalStateException(message)))
                .isInstanceOf(OutOfMemoryException.class)
                .hasMessage("out of memory: it failed, at node \"mm\" (MatMul), which requests 640 bytes; lower"
                        + " --device-memory, --seq-len or --samples");
    }

    /** A device that is lost in the middle of a run. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "CUDA failure 719: unspecified launch failure ; GPU=0 ; hostname=h ; file=f ; expr=cudaStreamSynchronize",
                "Non-zero status code returned while running Add node. Name:'a' Status Message: CUDA error CUDA failure 700: an illegal memory access was encountered ; GPU=0",
                "CUDA failure 46: CUDA-capable device(s) is/are busy or unavailable ; GPU=0"
            })
    void aLostDeviceIsSaidAndHowToGoOn(String message) {
        assertThat(Failures.onDevice("it failed", new IllegalStateException(message)))
                .hasMessageStartingWith("it failed: the CUDA device was lost (CUDA error ")
                .hasMessageEndingWith("go on with --resume");
    }

    @Test
    void otherFailuresKeepTheRuntimesReason() {
        assertThat(Failures.of("it failed", new IllegalStateException("an unknown\noperator")))
                .hasMessage("it failed: an unknown operator");
    }

    /** The reason is at the end, behind the names of all inputs of a node. */
    @Test
    void theReasonOfALongMessageIsWhole() {
        String inputs = "\"onnx_prune_trace_0\": tensor(float),".repeat(40);
        String reason = "Error Nodes in a graph must be topologically sorted, however input 'one' is not";

        UserException failure = Failures.of(
                "it failed",
                new IllegalStateException("This is an invalid model. In Node, (\"endless\", Loop, \"\", -1) : ("
                        + inputs + ") -> (\"y\",) , " + reason));

        assertThat(failure)
                .hasMessage(
                        "it failed: This is an invalid model. In Node, (\"endless\", Loop, \"\", -1) : (...) -> (\"y\",) , "
                                + reason);
        String words = "an unusual reason of many words; ".repeat(50) + "the end";
        assertThat(Failures.of("it failed", new IllegalStateException(words))).hasMessage("it failed: " + words);
    }

    /** Messages of ONNX Runtime 1.28 about models that need a newer one. */
    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            Fatal error: com.example:MyScale(-1) is not a registered function/op          | this runtime has no operator MyScale of domain com.example
            Error No Op registered for SwiGLU with domain_version of 28                   | this runtime has no operator SwiGLU of opset 28
            models stamped with official released onnx opset versions. Opset 27 is under development and support for this is limited. Current official support for domain ai.onnx is till opset 26. | the model is of opset 27 of domain ai.onnx, and this runtime knows opsets up to 26
            Unsupported model IR version: 15, max supported IR version: 13                | the model is of IR version 15, and this runtime knows versions up to 13
            This is an invalid model. In Node, ("conv", CausalConvWithState, "com.microsoft", -1) : ("a": tensor(float),) -> ("b",) , Error Unrecognized attribute: dilation for operator CausalConvWithState | this runtime does not know the attribute dilation of node "conv" (CausalConvWithState)
            In Node, ("a", QuickGelu, "com.microsoft", -1) : ("x": tensor(float),) -> ("y",) , Error Node(a) with schema(com.microsoft::QuickGelu:1) has input size 3 not in range [min=1, max=1]. | node "a" (QuickGelu) has 3 inputs, and this runtime knows up to 1
            NOT_IMPLEMENTED : Could not find an implementation for Attention(24) node with name 'att' | this runtime has no kernel for node "att" (Attention) on this provider and these types
            """)
    void whatARuntimeLacksIsNamed(String message, String lacking) {
        assertThat(Failures.of("it failed", new IllegalStateException("Error code - ORT_FAIL - message: " + message)))
                .hasMessage(
                        "it failed: " + lacking + "; give a newer or another ONNX Runtime library by --ort-library, or"
                                + " export the model in an older form");
    }

    /**
     * Messages of ONNX Runtime's CUDA provider, observed without the CUDA libraries, and with them but without a GPU.
     */
    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            Failed to load library /c/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file: No such file or directory | CUDA provider needs libcublasLt.so.13; put the folders of CUDA and cuDNN on LD_LIBRARY_PATH
            Failed to parse "device_id": CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1 ; hostname=vm                   | there is no CUDA device: the NVIDIA driver is missing
            Failed to parse "device_id": CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=vm                                           | CUDA error 100: no CUDA-capable device is detected
            Invalid device ID: 7, must be between 0 (inclusive) and 1 (exclusive).                                                                              | no CUDA device 7: Invalid device ID
            something else                                                                                                                                      | CUDA device 7 cannot be used: something else
            """)
    void missingPartsOfCudaAreNamed(String message, String part) {
        assertThat(Failures.cuda(7, FOLDER, new IllegalStateException(message)))
                .hasMessageContaining(part)
                .hasMessageEndingWith("use --provider cpu")
                .hasMessageNotContaining("hostname");
    }
}
