package io.onnxprune.autodiff;

/** Einsum. */
final class EinsumDerivative {
    private EinsumDerivative() {}

    static void apply(Derivation d) {
        throw d.unsupported("the operator has no derivative");
    }
}
