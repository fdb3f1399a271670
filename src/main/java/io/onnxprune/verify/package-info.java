// SPDX-License-Identifier: Apache-2.0
/** Runs the pruned model beside the masked full-size one: the proof that slicing changed nothing but size. */
package io.onnxprune.verify;
