/** Statistics and gradients of a model over calibration data, computed segment by segment. */
package io.onnxprune.calibrate;
