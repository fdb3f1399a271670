// SPDX-License-Identifier: Apache-2.0
package io.onnxprune;

import static com.tngtech.archunit.base.DescribedPredicate.describe;
import static com.tngtech.archunit.core.domain.JavaClass.Predicates.resideInAnyPackage;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.Architectures.layeredArchitecture;
import static com.tngtech.archunit.library.dependencies.SlicesRuleDefinition.slices;
import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.core.domain.JavaAccess;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import com.tngtech.archunit.lang.ArchRule;
import com.tngtech.archunit.lang.EvaluationResult;
import com.tngtech.archunit.library.Architectures.LayeredArchitecture;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Which package may use what. Every rule is also run on {@code badexample}, where it must fail. */
class ArchitectureTest {
    private static final String ROOT = "io.onnxprune";
    private static final String BAD_ROOT = "io.onnxprune.badexample";

    /** The packages, each with the packages that it may use. */
    private static final Map<String, String> EDGES = Map.ofEntries(
            Map.entry("algebra", "device diag"),
            Map.entry(
                    "api",
                    "algebra calibrate device diag dims emit eval ir latency measure onnx option pass passes plan recipe recover rewrite runtime verify vocabulary"),
            Map.entry("autodiff", "diag dims ir"),
            Map.entry("calibrate", "algebra autodiff device diag dims eval ir lower runtime"),
            Map.entry(
                    "cli",
                    "api calibrate diag dims emit eval ir measure onnx pass passes plan recipe recover runtime vocabulary"),
            Map.entry("compensate", "algebra calibrate diag dims ir obs option plan rewrite runtime"),
            Map.entry("device", "diag"),
            Map.entry("diag", ""),
            Map.entry("dims", "diag ir onnx runtime"),
            Map.entry("emit", "diag dims ir onnx plan"),
            Map.entry("eval", "diag ir onnx runtime"),
            Map.entry("ir", "diag"),
            Map.entry("latency", "device diag dims eval ir plan rewrite runtime"),
            Map.entry("lower", "diag dims ir onnx runtime"),
            Map.entry("measure", "calibrate diag dims ir onnx plan rewrite runtime"),
            Map.entry("method", "compensate diag dims ir measure obs option pass plan rewrite"),
            Map.entry("obs", "algebra diag"),
            Map.entry("onnx", "diag ir"),
            Map.entry("option", "diag"),
            Map.entry(
                    "pass",
                    "algebra calibrate device diag dims emit eval ir latency lower measure option plan recover rewrite runtime"),
            Map.entry(
                    "passes",
                    "algebra autodiff compensate diag dims emit eval ir latency measure method option pass plan recover rewrite runtime verify"),
            Map.entry("plan", "calibrate diag dims ir option"),
            Map.entry("recipe", "compensate diag method option pass"),
            Map.entry(
                    "recover",
                    "algebra autodiff calibrate compensate diag dims eval ir lower onnx option plan rewrite runtime"),
            Map.entry("rewrite", "diag dims ir plan"),
            Map.entry("runtime", "device diag ir onnx"),
            Map.entry("verify", "diag dims eval ir onnx plan rewrite runtime"),
            Map.entry("vocabulary", "diag dims emit ir onnx plan rewrite"));

    /** A library and the one package that may use it. */
    private static final List<Confined> CONFINED = List.of(
            new Confined("com.google.protobuf", "onnx"),
            new Confined("ai.onnx.proto", "onnx"),
            new Confined("org.bytedeco", "algebra"),
            new Confined("com.sun.jna", "device runtime"),
            new Confined("com.google.flatbuffers", "recover"),
            new Confined("ai.onnxruntime", "runtime"),
            new Confined("org.snakeyaml", "api recipe"),
            new Confined("picocli", "cli"),
            new Confined("ai.djl", "eval"));

    /** What only {@code cli} may touch: a class of the JDK and its members. */
    private static final List<ProcessMember> PROCESS_MEMBERS = List.of(
            new ProcessMember(System.class, Set.of("out", "err")),
            new ProcessMember(System.class, Set.of("exit")),
            new ProcessMember(Runtime.class, Set.of("exit", "halt")));

    private static final JavaClasses PRODUCT = new ClassFileImporter()
            .withImportOption(new ImportOption.DoNotIncludeTests())
            .importPackages(ROOT);
    private static final JavaClasses BAD_EXAMPLE = new ClassFileImporter().importPackages(BAD_ROOT);

    /** A library that only some packages may use. */
    private record Confined(String library, String users) {}

    private record ProcessMember(Class<?> owner, Set<String> names) {}

    static Stream<ArchRule> productRules() {
        return rules(ROOT).stream();
    }

    static Stream<ArchRule> badExampleRules() {
        return rules(BAD_ROOT).stream();
    }

    @ParameterizedTest
    @MethodSource("productRules")
    void productKeepsRule(ArchRule rule) {
        rule.check(PRODUCT);
    }

    @ParameterizedTest
    @MethodSource("badExampleRules")
    void badExampleBreaksRule(ArchRule rule) {
        EvaluationResult result = rule.evaluate(BAD_EXAMPLE);

        assertThat(result.hasViolation()).as(rule.getDescription()).isTrue();
    }

    @Test
    void productIsRead() {
        assertThat(PRODUCT.contain("io.onnxprune.diag.Log")).isTrue();
        assertThat(PRODUCT.contain(ArchitectureTest.class)).isFalse();
    }

    private static List<ArchRule> rules(String root) {
        List<ArchRule> rules = new ArrayList<>();
        rules.add(everyClassHasAPlace(root));
        rules.add(packagesUseOnlyDeclaredOnes(root));
        rules.add(slices().matching(root + ".(**)").should().beFreeOfCycles());
        CONFINED.forEach(confined -> rules.add(staysIn(root, confined)));
        PROCESS_MEMBERS.forEach(member -> rules.add(onlyTheCommandLineTouches(root, member)));
        return rules;
    }

    private static ArchRule everyClassHasAPlace(String root) {
        return classes()
                .should()
                .resideInAnyPackage(inside(root, List.copyOf(EDGES.keySet())))
                .as("every class is in a declared package");
    }

    private static ArchRule packagesUseOnlyDeclaredOnes(String root) {
        LayeredArchitecture layers = layeredArchitecture().consideringOnlyDependenciesInLayers();
        for (String name : EDGES.keySet()) {
            layers = layers.optionalLayer(name).definedBy(inside(root, name));
        }
        for (Map.Entry<String, String> edge : EDGES.entrySet()) {
            layers = edge.getValue().isEmpty()
                    ? layers.whereLayer(edge.getKey()).mayNotAccessAnyLayer()
                    : layers.whereLayer(edge.getKey())
                            .mayOnlyAccessLayers(edge.getValue().split(" "));
        }
        return layers.as("packages use only those that are declared for them");
    }

    private static ArchRule staysIn(String root, Confined confined) {
        return noClasses()
                .that()
                .resideOutsideOfPackages(inside(root, List.of(confined.users().split(" "))))
                .should()
                .dependOnClassesThat(resideInAnyPackage(confined.library() + ".."))
                .as("only " + confined.users() + " uses " + confined.library());
    }

    private static ArchRule onlyTheCommandLineTouches(String root, ProcessMember member) {
        return noClasses()
                .that()
                .resideOutsideOfPackage(inside(root, "cli"))
                .should()
                .accessTargetWhere(describe(
                        "touches the process",
                        (JavaAccess<?> access) -> access.getTargetOwner().isEquivalentTo(member.owner())
                                && member.names().contains(access.getName())))
                .as("only cli touches " + member.owner().getSimpleName() + "." + String.join("/", member.names()));
    }

    private static String inside(String root, String name) {
        return root + "." + name + "..";
    }

    private static String[] inside(String root, List<String> names) {
        return names.stream().map(name -> inside(root, name)).toArray(String[]::new);
    }
}
