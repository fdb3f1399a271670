// SPDX-License-Identifier: Apache-2.0
/** The Java API: what the command line does, for programs. Nothing here prints or ends the process. See docs/java-api.md. */
@NullMarked
package io.onnxprune.api;

import org.jspecify.annotations.NullMarked;
