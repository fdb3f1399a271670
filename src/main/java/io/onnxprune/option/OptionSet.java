// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.option;

import io.onnxprune.diag.UsageException;
import java.lang.reflect.Constructor;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.ParameterizedType;
import java.lang.reflect.RecordComponent;
import java.lang.reflect.Type;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;
import java.util.OptionalLong;

/**
 * Reads and makes records whose components are {@link Option}s. A component is
 *
 * <ul>
 *   <li>an {@code int}, {@code long}, {@code double}, {@code boolean}, {@code String}, an enum, whose constants are written in
 *       kebab case, or a {@code List<String>};
 *   <li>one of a type with a static method {@code parse(String)}, or {@code parse(Collection)} beside {@code words()} for a list
 *       of words;
 *   <li>an {@code Optional}, {@code OptionalInt}, {@code OptionalLong} or {@code OptionalDouble} of these, without a default;
 *   <li>a {@link Part}: the value names one, whose own options are then options of the record too;
 *   <li>without {@link Option}, another record, whose options are options of this one too.
 * </ul>
 */
public final class OptionSet {
    private final Extensions extensions;

    public OptionSet(Extensions extensions) {
        this.extensions = extensions;
    }

    /**
     * The options of a record, with those of the parts that {@code values} or the defaults name.
     *
     * @param values text by key; keys that are no options do not matter
     */
    public List<OptionSpec> options(Class<?> type, Map<String, String> values) {
        Map<String, OptionSpec> found = new LinkedHashMap<>();
        collect(defaults(type), values, "", found);
        return List.copyOf(found.values());
    }

    private void collect(Object defaults, Map<String, String> values, String owner, Map<String, OptionSpec> found) {
        for (RecordComponent component : defaults.getClass().getRecordComponents()) {
            Object fallback = get(component, defaults);
            Option option = component.getAnnotation(Option.class);
            if (option == null) {
                collect(fallback, values, owner, found);
                continue;
            }
            OptionSpec spec = spec(component, option, fallback, owner);
            found.putIfAbsent(spec.key(), spec);
            part(component, values.getOrDefault(spec.key(), spec.fallback()))
                    .ifPresent(part -> collect(
                            part.isInstance(fallback) ? fallback : defaults(part), values, Part.nameOf(part), found));
        }
    }

    /**
     * Makes a record.
     *
     * @param values text by key; what is not there keeps its default
     * @throws UsageException without a place, if the record's constructor refuses the values together
     * @throws IllegalArgumentException if a value was not checked by {@link OptionSpec#check}
     */
    public <T> T bind(Class<T> type, Map<String, String> values) {
        return type.cast(bind(defaults(type), values));
    }

    private Object bind(Object defaults, Map<String, String> values) {
        RecordComponent[] components = defaults.getClass().getRecordComponents();
        Object[] arguments = new Object[components.length];
        for (int i = 0; i < components.length; i++) {
            Object fallback = get(components[i], defaults);
            Option option = components[i].getAnnotation(Option.class);
            if (option == null) {
                arguments[i] = bind(fallback, values);
                continue;
            }
            String key = key(components[i], option);
            String text = values.get(key);
            if (Part.class.isAssignableFrom(components[i].getType())) {
                String name = text == null ? name(fallback) : text;
                Class<? extends Part> part =
                        part(components[i], name).orElseThrow(() -> new IllegalArgumentException(name));
                arguments[i] = bind(part.isInstance(fallback) ? fallback : defaults(part), values);
            } else {
                arguments[i] = text == null ? fallback : parse(components[i].getGenericType(), text);
            }
        }
        return create(defaults.getClass(), components, arguments);
    }

    private static Object create(Class<?> type, RecordComponent[] components, Object[] arguments) {
        Class<?>[] types =
                Arrays.stream(components).map(RecordComponent::getType).toArray(Class<?>[]::new);
        try {
            Constructor<?> constructor = type.getDeclaredConstructor(types);
            return constructor.newInstance(arguments);
        } catch (InvocationTargetException e) {
            if (e.getCause() instanceof RuntimeException cause) {
                throw cause;
            }
            throw new IllegalStateException(e.getCause());
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(type + " must be a public record", e);
        }
    }

    /** A record as its constructor without parameters makes it. */
    private static Object defaults(Class<?> type) {
        return create(type, new RecordComponent[0], new Object[0]);
    }

    private static Object get(RecordComponent component, Object record) {
        try {
            return component.getAccessor().invoke(record);
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(record.getClass() + " must be a public record", e);
        }
    }

    private static String name(Object part) {
        return ((Part) part).partName();
    }

    /** The kind of part that a component's value names; empty if it is none. */
    @SuppressWarnings("unchecked") // checked by isAssignableFrom
    private Optional<Class<? extends Part>> part(RecordComponent component, String name) {
        if (!Part.class.isAssignableFrom(component.getType())) {
            return Optional.empty();
        }
        return Optional.ofNullable(
                extensions.parts((Class<? extends Part>) component.getType()).get(name));
    }

    private static String key(RecordComponent component, Option option) {
        return option.key().isEmpty() ? kebab(component.getName()) : option.key();
    }

    private static String kebab(String camel) {
        return camel.replaceAll("(?<=[a-z])(?=[A-Z])", "-").toLowerCase(Locale.ROOT);
    }

    private OptionSpec spec(RecordComponent component, Option option, Object fallback, String owner) {
        Type type = component.getGenericType();
        OptionSpec.Form form = Part.class.isAssignableFrom(component.getType())
                ? new OptionSpec.Words(names(component.getType()), false)
                : form(content(type), option);
        return new OptionSpec(key(component, option), form, text(fallback), option.value(), owner);
    }

    @SuppressWarnings("unchecked") // asked for parts only
    private List<String> names(Class<?> kind) {
        return List.copyOf(extensions.parts((Class<? extends Part>) kind).keySet());
    }

    /** The type of the value that an optional one may have. */
    private static Type content(Type type) {
        if (type == OptionalInt.class) {
            return int.class;
        }
        if (type == OptionalLong.class) {
            return long.class;
        }
        if (type == OptionalDouble.class) {
            return double.class;
        }
        return type instanceof ParameterizedType generic && generic.getRawType() == Optional.class
                ? generic.getActualTypeArguments()[0]
                : type;
    }

    private static OptionSpec.Form form(Type type, Option option) {
        if (type == int.class || type == long.class || type == double.class) {
            return new OptionSpec.Numbers(type != double.class, option.min(), option.below());
        }
        if (type == boolean.class) {
            return new OptionSpec.Flag();
        }
        if (type == String.class) {
            return new OptionSpec.Words(List.of(), false);
        }
        if (type instanceof ParameterizedType generic && generic.getRawType() == List.class) {
            return new OptionSpec.Words(List.of(), true);
        }
        Class<?> plain = (Class<?>) type;
        if (plain.isEnum()) {
            return new OptionSpec.Words(
                    Arrays.stream(plain.getEnumConstants()).map(OptionSet::text).toList(), false);
        }
        Optional<Method> ofList = method(plain, "words");
        if (ofList.isPresent()) {
            @SuppressWarnings("unchecked") // by the rules of this class
            List<String> words = (List<String>) invoke(ofList.get());
            return new OptionSpec.Words(words, true);
        }
        return new OptionSpec.Parsed(option.values(), text -> parse(plain, text));
    }

    private static Object parse(Type type, String text) {
        if (type == OptionalInt.class) {
            return OptionalInt.of(Integer.parseInt(text));
        }
        if (type == OptionalLong.class) {
            return OptionalLong.of(Long.parseLong(text));
        }
        if (type == OptionalDouble.class) {
            return OptionalDouble.of(Double.parseDouble(text));
        }
        if (type instanceof ParameterizedType generic) {
            return generic.getRawType() == Optional.class
                    ? Optional.of(parse(generic.getActualTypeArguments()[0], text))
                    : OptionSpec.elements(text);
        }
        if (type == int.class) {
            return Integer.parseInt(text);
        }
        if (type == long.class) {
            return Long.parseLong(text);
        }
        if (type == double.class) {
            return Double.parseDouble(text);
        }
        if (type == boolean.class) {
            return Boolean.parseBoolean(text);
        }
        Class<?> plain = (Class<?>) type;
        if (plain.isEnum()) {
            return Arrays.stream(plain.getEnumConstants())
                    .filter(constant -> text(constant).equals(text))
                    .findFirst()
                    .orElseThrow(() -> new IllegalArgumentException(text));
        }
        if (type == String.class) {
            return text;
        }
        Optional<Method> ofWords = method(plain, "parse", Collection.class);
        return ofWords.isPresent()
                ? invoke(ofWords.get(), OptionSpec.elements(text))
                : invoke(
                        method(plain, "parse", String.class)
                                .orElseThrow(() -> new IllegalStateException(plain + " has no parse(String)")),
                        text);
    }

    private static Optional<Method> method(Class<?> type, String name, Class<?>... parameters) {
        return Arrays.stream(type.getMethods())
                .filter(method -> method.getName().equals(name)
                        && Modifier.isStatic(method.getModifiers())
                        && Arrays.equals(method.getParameterTypes(), parameters))
                .findFirst();
    }

    private static Object invoke(Method method, Object... arguments) {
        try {
            return method.invoke(null, arguments);
        } catch (InvocationTargetException e) {
            if (e.getCause() instanceof RuntimeException cause) {
                throw cause;
            }
            throw new IllegalStateException(e.getCause());
        } catch (IllegalAccessException e) {
            throw new IllegalStateException(e);
        }
    }

    /** A value as a recipe writes it; empty for an optional one that is not there. */
    private static String text(Object value) {
        if (value instanceof Optional<?> optional) {
            return optional.map(OptionSet::text).orElse("");
        }
        if (value instanceof OptionalInt optional) {
            return optional.isEmpty() ? "" : Integer.toString(optional.getAsInt());
        }
        if (value instanceof OptionalLong optional) {
            return optional.isEmpty() ? "" : Long.toString(optional.getAsLong());
        }
        if (value instanceof OptionalDouble optional) {
            return optional.isEmpty() ? "" : Double.toString(optional.getAsDouble());
        }
        if (value instanceof Enum<?> constant) {
            return constant.name().toLowerCase(Locale.ROOT).replace('_', '-');
        }
        if (value instanceof Collection<?> list) {
            List<String> words = new ArrayList<>();
            list.forEach(element -> words.add(text(element)));
            return String.join(", ", words);
        }
        if (value instanceof Part part) {
            return part.partName();
        }
        if (value instanceof Double number && number == Math.rint(number) && Math.abs(number) < 1e9) {
            return Long.toString(number.longValue());
        }
        return String.valueOf(value);
    }
}
