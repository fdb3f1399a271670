// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoraAdapter;
import ai.onnxruntime.OrtSession.RunOptions;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.FlatTable;
import io.onnxprune.ir.FlatTensors;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** A loaded adapter: values for optional inputs of a model, used by every run of a session. */
final class LoadedAdapter implements AutoCloseable {
    private static final String REMEDY = "write it again with recover --keep-adapters, or download it again";
    /** As in the schema of ONNX Runtime, of which src/main/flatbuffers has a copy. */
    private static final String IDENTIFIER = "TORT";

    private static final int FORMAT_FIELD = 0;
    private static final int TENSORS_FIELD = 3;
    private static final FlatTensors TENSORS = new FlatTensors(0, 1, 2, 3);
    private static final int FORMAT = 1;

    private final OrtLoraAdapter adapter;
    private final RunOptions options;

    private LoadedAdapter(OrtLoraAdapter adapter, RunOptions options) {
        this.adapter = adapter;
        this.options = options;
    }

    /**
     * Loads an adapter file of ONNX Runtime (.onnx_adapter), which does not check what it reads.
     *
     * @throws UserException when the file does not exist or is damaged, or the runtime rejects it
     */
    static LoadedAdapter load(Path file) {
        if (!Files.isRegularFile(file)) {
            throw new UserException("the adapter file " + file + " does not exist; give the path of an .onnx_adapter");
        }
        check(file);
        OrtLoraAdapter adapter = null;
        try {
            adapter = NativePath.isPlain(file)
                    ? OrtLoraAdapter.create(file.toString())
                    : OrtLoraAdapter.create(Files.readAllBytes(file));
            RunOptions options = new RunOptions();
            options.addActiveLoraAdapter(adapter);
            return new LoadedAdapter(adapter, options);
        } catch (IOException e) {
            throw new UserException("cannot read the adapter " + file + ": " + FileFailure.reason(e), e);
        } catch (OrtException e) {
            if (adapter != null) {
                adapter.close();
            }
            throw OnnxRuntime.failure("ONNX Runtime cannot load the adapter " + file, e);
        }
    }

    /**
     * Checks everything that the runtime reads of an adapter.
     *
     * @throws UserException when something in it cannot be
     */
    static void check(Path file) {
        try (FileChannel channel = FileChannel.open(file)) {
            if (channel.size() > Integer.MAX_VALUE) {
                throw new UserException("the adapter " + file + " is larger than 2 GiB, the limit of its format");
            }
            ByteBuffer bytes = channel.map(MapMode.READ_ONLY, 0, channel.size());
            FlatTable root = FlatTable.root(bytes, IDENTIFIER);
            int format = root.integer(FORMAT_FIELD, 0);
            if (format != FORMAT) {
                throw new UserException("the adapter %s has format %d, but ONNX Runtime reads %d; %s"
                        .formatted(file, format, FORMAT, REMEDY));
            }
            List<FlatTable> tensors = root.tables(TENSORS_FIELD);
            if (tensors == null) {
                throw new UserException("the adapter " + file + " has no tensors; " + REMEDY);
            }
            TENSORS.read(tensors, "the adapter " + file, REMEDY).forEach((name, tensor) -> {
                if (!OnnxRuntime.accepts(tensor.dtype())) {
                    throw new UserException(
                            "tensor \"%s\" of the adapter %s has the element type %s, which no input takes; %s"
                                    .formatted(name, file, tensor.dtype(), REMEDY));
                }
            });
        } catch (FlatTable.DamagedException e) {
            throw new UserException(
                    "%s is not an adapter of ONNX Runtime, or is damaged (%s); %s"
                            .formatted(file, e.getMessage(), REMEDY),
                    e);
        } catch (IOException e) {
            throw new UserException("cannot read the adapter " + file + ": " + FileFailure.reason(e), e);
        }
    }

    RunOptions options() {
        return options;
    }

    @Override
    public void close() {
        options.close();
        adapter.close();
    }
}
