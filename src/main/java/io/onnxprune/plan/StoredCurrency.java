// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Structure;
import java.util.List;
import java.util.Locale;

/** What constants alone tell. */
enum StoredCurrency implements Currency {
    PARAMETERS("parameters") {
        @Override
        public double amount(double parameters, double bytes, double other) {
            return parameters;
        }
    },
    BYTES("bytes") {
        @Override
        public double amount(double parameters, double bytes, double other) {
            return bytes;
        }
    };

    private final String unit;

    StoredCurrency(String unit) {
        this.unit = unit;
    }

    @Override
    public String unit() {
        return unit;
    }

    @Override
    public String number(double amount) {
        return String.format(Locale.ROOT, "%,.0f", amount);
    }

    @Override
    public boolean isLimit() {
        return false;
    }

    @Override
    public List<Part> parts(Structure structure) {
        return List.of();
    }
}
