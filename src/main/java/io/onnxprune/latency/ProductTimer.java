// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.latency;

/** Measures single products. */
interface ProductTimer {
    /**
     * The time of one product.
     *
     * @return seconds
     * @throws io.onnxprune.diag.UserException if it cannot be run here
     */
    double seconds(ProductShape shape);
}
