// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoraAdapter;
import ai.onnxruntime.OrtSession.RunOptions;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** A loaded adapter: values for optional inputs of a model, used by every run of a session. */
final class LoadedAdapter implements AutoCloseable {
    private final OrtLoraAdapter adapter;
    private final RunOptions options;

    private LoadedAdapter(OrtLoraAdapter adapter, RunOptions options) {
        this.adapter = adapter;
        this.options = options;
    }

    /**
     * Loads an adapter file of ONNX Runtime (.onnx_adapter).
     *
     * @throws UserException when the file does not exist or the runtime rejects it
     */
    static LoadedAdapter load(Path file) {
        if (!Files.isRegularFile(file)) {
            throw new UserException("the adapter file " + file + " does not exist; give the path of an .onnx_adapter");
        }
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

    RunOptions options() {
        return options;
    }

    @Override
    public void close() {
        options.close();
        adapter.close();
    }
}
