// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.plan.Plan;
import java.nio.file.Path;

/** Readers of this package for tests of other packages. */
public final class ConfigReaders {
    private ConfigReaders() {}

    /** Reads a config.json, patches it for a plan and makes the text of the result. */
    public static void config(Path file, Structure structure, Plan plan) {
        Sizes sizes = Sizes.of(structure, plan);
        JsonFile.read(file).ifPresent(json -> {
            ModelConfig.patch(json.root(), sizes, false, Log.NONE);
            GenaiConfig.patch(json.root(), sizes, "model.onnx", Log.NONE);
            json.toBytes();
        });
    }
}
