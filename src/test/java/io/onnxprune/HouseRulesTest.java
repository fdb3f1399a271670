// SPDX-License-Identifier: Apache-2.0
package io.onnxprune;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Rules about the text of the product's sources that no compiler checks. */
class HouseRulesTest {
    private static final Path SOURCES = Path.of("src", "main", "java");
    private static final int MAX_LINES = 600;

    private static final Pattern UNFINISHED = Pattern.compile("\\b(TODO|FIXME)\\b");
    private static final Pattern WILDCARD_IMPORT = Pattern.compile("(?m)^import\\s+(static\\s+)?[\\w.]+\\.\\*;");
    private static final Pattern PACKAGE_COMMENT =
            Pattern.compile("(?s)^(//[^\\n]*\\n)?\\s*/\\*\\*.*?\\w.*?\\*/.*\\bpackage\\s");

    /** Comments and character literals are matched so that a quote inside them does not open a string. */
    private static final Pattern LITERAL = Pattern.compile("//[^\\n]*"
            + "|(?s:/\\*.*?\\*/)"
            + "|'(?:\\\\.|[^'\\\\\\n])+'"
            + "|\"\"\"(?<block>(?s:(?:\\\\.|[^\\\\])*?))\"\"\""
            + "|\"(?<line>(?:\\\\.|[^\"\\\\\\n])*)\"");

    /** Structures are found from the graph, so no name of an architecture or a weight has a place in the code. */
    private static final Pattern MODEL_NAME = Pattern.compile("llama|gpt2|qwen|mistral|gemma|bloom|falcon|chatglm"
            + "|[qkv]_proj|(gate|up|down)_proj|self_attn|lm_head|model\\.layers|embed_tokens");

    @Test
    void sourcesKeepTheRules() throws IOException {
        List<String> problems = new ArrayList<>();
        for (Path source : sources()) {
            String name = SOURCES.relativize(source).toString();
            problems(Files.readString(source)).forEach(problem -> problems.add(name + ": " + problem));
        }

        assertThat(problems).isEmpty();
    }

    /** The format check adds the line to classes; it leaves package-info.java alone. */
    @Test
    void everySourceNamesItsLicence() throws IOException {
        for (Path source : sources()) {
            // Generated as they are.
            if (source.getParent().endsWith("flatbuffers") && !source.endsWith("package-info.java")) {
                continue;
            }
            assertThat(Files.readString(source))
                    .as(source.toString())
                    .startsWith("// SPDX-License-Identifier: Apache-2.0\n");
        }
    }

    @Test
    void everyPackageSaysWhatItIsFor() throws IOException {
        TreeMap<Path, String> packages = new TreeMap<>();
        for (Path source : sources()) {
            packages.putIfAbsent(source.getParent(), "");
            if (source.endsWith("package-info.java")) {
                packages.put(source.getParent(), Files.readString(source));
            }
        }

        assertThat(packages)
                .isNotEmpty()
                .allSatisfy((folder, packageInfo) -> assertThat(isPackageComment(packageInfo))
                        .as(folder + "/package-info.java")
                        .isTrue());
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "// TODO: later",
                "/* FIXME */",
                "import java.util.*;",
                "import static java.lang.Math.*;",
                "String s = \"Llama\";",
                "char c = '\"'; String s = \"x.q_proj.weight\";",
                "String s = \"\\\"\"; String t = \"/model.layers.0\";",
                "/* \" */ String s = \"lm_head\";",
                "String s = \"\"\"\n    an \"odd\" block with embed_tokens\n    \"\"\";"
            })
    void badTextIsFound(String source) {
        assertThat(problems(source)).hasSize(1);
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "// a model such as Llama \"llama\" may be named in a comment",
                "/** \"q_proj\" */ int x;",
                "import java.util.List;",
                "String s = \"heads\"; // \"falcon\"",
                "char c = '\"'; int bloom = 1; char d = '\"';",
                "int a = mastodons; String s = \"//\"; int llama;"
            })
    void goodTextIsNot(String source) {
        assertThat(problems(source)).isEmpty();
    }

    @Test
    void longFilesAreFound() {
        assertThat(problems("int x;\n".repeat(MAX_LINES))).isEmpty();
        assertThat(problems("int x;\n".repeat(MAX_LINES + 1))).hasSize(1);
    }

    @Test
    void packageCommentsAreTold() {
        assertThat(isPackageComment("/** What it is for. */\npackage a;\n")).isTrue();
        assertThat(isPackageComment("package a;\n")).isFalse();
        assertThat(isPackageComment("/** */\npackage a;\n")).isFalse();
        assertThat(isPackageComment("")).isFalse();
    }

    private static List<Path> sources() throws IOException {
        try (Stream<Path> files = Files.walk(SOURCES)) {
            return files.filter(file -> file.toString().endsWith(".java"))
                    .sorted()
                    .toList();
        }
    }

    private static boolean isPackageComment(String source) {
        return PACKAGE_COMMENT.matcher(source).find();
    }

    private static List<String> problems(String source) {
        List<String> problems = new ArrayList<>();
        Matcher unfinished = UNFINISHED.matcher(source);
        while (unfinished.find()) {
            problems.add("unfinished: " + unfinished.group());
        }
        Matcher wildcard = WILDCARD_IMPORT.matcher(source);
        while (wildcard.find()) {
            problems.add("wildcard import: " + wildcard.group());
        }
        for (String literal : stringLiterals(source)) {
            Matcher modelName = MODEL_NAME.matcher(literal.toLowerCase(Locale.ROOT));
            if (modelName.find()) {
                problems.add("name of an architecture or weight: \"" + literal + "\"");
            }
        }
        long lines = source.lines().count();
        if (lines > MAX_LINES) {
            problems.add(lines + " lines, more than " + MAX_LINES);
        }
        return problems;
    }

    private static List<String> stringLiterals(String source) {
        List<String> literals = new ArrayList<>();
        Matcher matcher = LITERAL.matcher(source);
        while (matcher.find()) {
            if (matcher.group("block") != null) {
                literals.add(matcher.group("block"));
            } else if (matcher.group("line") != null) {
                literals.add(matcher.group("line"));
            }
        }
        return literals;
    }
}
