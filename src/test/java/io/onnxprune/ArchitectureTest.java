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
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Which package may use what. Every rule is also run on {@code badexample}, where it must fail. */
class ArchitectureTest {
    private static final String ROOT = "io.onnxprune";
    private static final String BAD_ROOT = "io.onnxprune.badexample";

    /** The packages in dependency order: each may use only those before it. */
    private static final List<String> ORDER = List.of(
            "diag",
            "algebra",
            "obs",
            "ir",
            "onnx",
            "runtime",
            "eval",
            "dims",
            "lower",
            "autodiff",
            "calibrate",
            "plan",
            "rewrite",
            "compensate",
            "verify",
            "emit",
            "recover",
            "recipe",
            "compiler",
            "cli");

    /** A library and the one package that may use it. */
    private static final List<Confined> CONFINED = List.of(
            new Confined("com.google.protobuf", "onnx"),
            new Confined("ai.onnx.proto", "onnx"),
            new Confined("org.bytedeco", "algebra"),
            new Confined("com.google.flatbuffers", "recover"),
            new Confined("ai.onnxruntime", "runtime"),
            new Confined("org.snakeyaml", "recipe"),
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

    private record Confined(String library, String user) {}

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
        rules.add(packagesUseOnlyEarlierOnes(root));
        rules.add(slices().matching(root + ".(**)").should().beFreeOfCycles());
        CONFINED.forEach(confined -> rules.add(staysIn(root, confined)));
        PROCESS_MEMBERS.forEach(member -> rules.add(onlyTheCommandLineTouches(root, member)));
        return rules;
    }

    private static ArchRule everyClassHasAPlace(String root) {
        return classes().should().resideInAnyPackage(inside(root, ORDER)).as("every class has a place in the order");
    }

    private static ArchRule packagesUseOnlyEarlierOnes(String root) {
        LayeredArchitecture order = layeredArchitecture().consideringOnlyDependenciesInLayers();
        for (String name : ORDER) {
            order = order.optionalLayer(name).definedBy(inside(root, name));
        }
        order = order.whereLayer(ORDER.get(0)).mayNotAccessAnyLayer();
        for (int i = 1; i < ORDER.size(); i++) {
            String[] earlier = ORDER.subList(0, i).toArray(String[]::new);
            order = order.whereLayer(ORDER.get(i)).mayOnlyAccessLayers(earlier);
        }
        return order.as("packages use only those before them: " + String.join(", ", ORDER));
    }

    private static ArchRule staysIn(String root, Confined confined) {
        return noClasses()
                .that()
                .resideOutsideOfPackage(inside(root, confined.user()))
                .should()
                .dependOnClassesThat(resideInAnyPackage(confined.library() + ".."))
                .as("only " + confined.user() + " uses " + confined.library());
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
