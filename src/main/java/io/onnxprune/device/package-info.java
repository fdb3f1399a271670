// SPDX-License-Identifier: Apache-2.0
/**
 * Memory that sessions and dense algebra work in: the host's, or that of a GPU. Only this package uses JNA. It loads
 * neither JNA nor CUDA before the first {@link io.onnxprune.device.Device} is made.
 */
package io.onnxprune.device;
