// SPDX-License-Identifier: Apache-2.0
/** Classes that break every rule of {@code ArchitectureTest}, to show that each rule can fail. Never used by anything. */
package io.onnxprune.badexample;
