// SPDX-License-Identifier: Apache-2.0
/** The passes that recipes can name. */
package io.onnxprune.passes;
