// SPDX-License-Identifier: Apache-2.0
package io.onnxprune;

import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.core.domain.JavaAccess;
import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.domain.JavaCodeUnit;
import com.tngtech.archunit.core.domain.JavaConstructor;
import com.tngtech.archunit.core.domain.JavaMember;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.ArrayDeque;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/**
 * A test class has the tag {@code ort} exactly if something that it calls opens ONNX Runtime or runs the program. So
 * {@code -Pfast} leaves out all of them, and nothing else.
 */
class TestTagsTest {
    private static final String ORT = "ort";

    /** The class is not named as such, for this test would then seem to start the program. */
    private static final String PROGRAM = "io.onnxprune.cli.Main";

    private static final Set<String> TAGS = Set.of(ORT, "slow");
    private static final JavaClasses CLASSES = new ClassFileImporter().importPackages("io.onnxprune");

    @Test
    void classesThatReachTheRuntimeHaveTheTag() {
        Set<String> tagged = new TreeSet<>();
        Set<String> reaching = new TreeSet<>();
        for (JavaClass test : testClasses()) {
            if (tags(test).contains(ORT)) {
                tagged.add(test.getName());
            }
            if (reachesRuntime(test)) {
                reaching.add(test.getName());
            }
        }

        assertThat(reaching).contains("io.onnxprune.runtime.OnnxRuntimeTest", "io.onnxprune.cli.InspectTest");
        assertThat(tagged).isEqualTo(reaching);
    }

    @Test
    void thereAreNoOtherTags() {
        assertThat(testClasses())
                .allSatisfy(test -> assertThat(TAGS).as(test.getName()).containsAll(tags(test)));
    }

    private static List<JavaClass> testClasses() {
        return CLASSES.stream()
                .filter(candidate -> candidate.getSimpleName().endsWith("Test"))
                .toList();
    }

    private static Set<String> tags(JavaClass test) {
        Class<?> reflected = test.reflect();
        return List.of(reflected.getAnnotationsByType(Tag.class)).stream()
                .map(Tag::value)
                .collect(Collectors.toSet());
    }

    private static boolean reachesRuntime(JavaClass test) {
        return new Reach(test).find();
    }

    /**
     * Follows calls from a test class. A call of a method that is overridden may go to each class of which the code so far
     * has made an instance. An instance also answers calls that come from a library.
     */
    private static final class Reach {
        private final ArrayDeque<JavaCodeUnit> waiting = new ArrayDeque<>();
        private final Set<JavaCodeUnit> seen = new HashSet<>();
        private final Set<JavaClass> initialised = new HashSet<>();
        private final Set<JavaClass> made = new HashSet<>();

        /** Names and operands of all methods that are called. */
        private final Set<String> called = new HashSet<>();

        Reach(JavaClass test) {
            initialise(test);
            make(test);
            test.getAllMembers().forEach(this::add);
        }

        boolean find() {
            while (!waiting.isEmpty()) {
                JavaCodeUnit unit = waiting.remove();
                if (isEntry(unit) || startsProgram(unit)) {
                    return true;
                }
                unit.getAccessesFromSelf().forEach(this::follow);
                unit.getReferencedClassObjects().forEach(object -> initialise(object.getRawType()));
            }
            return false;
        }

        private static boolean isEntry(JavaCodeUnit unit) {
            return unit.getOwner().isEquivalentTo(OnnxRuntime.class)
                            && unit.getName().equals("open")
                    || unit.getOwner().getName().equals(PROGRAM)
                            && unit.getName().equals("run");
        }

        /** A test names the class to run the program in a process of its own. */
        private static boolean startsProgram(JavaCodeUnit unit) {
            return unit.getReferencedClassObjects().stream()
                    .anyMatch(object -> object.getRawType().getName().equals(PROGRAM));
        }

        private void follow(JavaAccess<?> access) {
            if (!isOurs(access.getTargetOwner())) {
                return;
            }
            initialise(access.getTargetOwner());
            access.getTarget().resolveMember().ifPresent(target -> {
                add((JavaMember) target);
                if (target instanceof JavaConstructor constructor) {
                    make(constructor.getOwner());
                } else if (target instanceof JavaCodeUnit unit && called.add(signature(unit))) {
                    made.forEach(this::addCalled);
                }
            });
        }

        private void initialise(JavaClass type) {
            if (isOurs(type) && initialised.add(type)) {
                type.getStaticInitializer().ifPresent(this::add);
            }
        }

        private void make(JavaClass type) {
            if (isOurs(type) && made.add(type)) {
                type.getRawSuperclass().ifPresent(this::make);
                addCalled(type);
            }
        }

        private void addCalled(JavaClass type) {
            type.getMethods().stream()
                    .filter(method -> called.contains(signature(method)) || isOfLibrary(type, signature(method)))
                    .forEach(this::add);
        }

        private static boolean isOfLibrary(JavaClass type, String signature) {
            return Stream.concat(type.getAllRawSuperclasses().stream(), type.getAllRawInterfaces().stream())
                    .filter(parent -> !isOurs(parent))
                    .flatMap(parent -> parent.getMethods().stream())
                    .anyMatch(method -> signature(method).equals(signature));
        }

        private void add(JavaMember member) {
            if (member instanceof JavaCodeUnit unit && isOurs(unit.getOwner()) && seen.add(unit)) {
                waiting.add(unit);
            }
        }

        private static String signature(JavaCodeUnit unit) {
            return unit.getName() + unit.getRawParameterTypes().size();
        }

        private static boolean isOurs(JavaClass type) {
            return type.getPackageName().startsWith("io.onnxprune");
        }
    }
}
