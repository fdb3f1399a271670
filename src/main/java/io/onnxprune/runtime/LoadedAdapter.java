// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoraAdapter;
import ai.onnxruntime.OrtSession.RunOptions;
import io.onnxprune.diag.UserException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Contents for optional inputs of a model, which every run of a session takes. */
final class LoadedAdapter implements AutoCloseable {
    private final OrtLoraAdapter adapter;
    private final RunOptions options;

    private LoadedAdapter(OrtLoraAdapter adapter, RunOptions options) {
        this.adapter = adapter;
        this.options = options;
    }

    /**
     * Loads an adapter file of ONNX Runtime.
     *
     * @throws UserException if there is none, or the runtime refuses it
     */
    static LoadedAdapter load(Path file) {
        if (!Files.isRegularFile(file)) {
            throw new UserException("the adapter file " + file + " does not exist; give the path of an .onnx_adapter");
        }
        OrtLoraAdapter adapter = null;
        try {
            adapter = OrtLoraAdapter.create(file.toString());
            RunOptions options = new RunOptions();
            options.addActiveLoraAdapter(adapter);
            return new LoadedAdapter(adapter, options);
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
