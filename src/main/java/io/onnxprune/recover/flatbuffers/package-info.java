// SPDX-License-Identifier: Apache-2.0
/**
 * Files of ONNX Runtime as FlatBuffers. All classes are generated from the schemas in {@code src/main/flatbuffers}, by the flatc of the
 * very version of FlatBuffers that {@code pom.xml} names: {@code flatc --java -o src/main/java src/main/flatbuffers/*.fbs}.
 */
package io.onnxprune.recover.flatbuffers;
