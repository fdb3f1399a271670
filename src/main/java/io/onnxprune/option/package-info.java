// SPDX-License-Identifier: Apache-2.0
/** Options that records declare: how a recipe, the command line and documentation know them. */
package io.onnxprune.option;
