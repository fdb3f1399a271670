// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

/** A program that serves a folder with a model. */
public enum Client {
    /** ONNX Runtime, from any language. It reads the model only. */
    ORT("ort", "onnx"),
    /** onnxruntime-genai from version 0.15 on. */
    GENAI("genai", "onnxruntime-genai"),
    /** ORTModelForCausalLM of optimum-onnx. */
    OPTIMUM("optimum", "optimum"),
    /** AutoConfig and AutoTokenizer of transformers 4.57 to 5.18. */
    TRANSFORMERS("transformers", "transformers"),
    /** transformers.js 3 and 4. */
    TRANSFORMERS_JS("transformers.js", "transformers.js");

    private final String title;
    private final String library;

    Client(String title, String library) {
        this.title = title;
        this.library = library;
    }

    /** The name for options and messages. */
    public String title() {
        return title;
    }

    /** The name of the library in the header of a model card. */
    public String library() {
        return library;
    }
}
