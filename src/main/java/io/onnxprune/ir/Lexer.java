// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.ArrayList;
import java.util.List;

/**
 * Splits the text form of a model into words, strings and marks. A word is a run of characters other than spaces, quotes
 * and marks, so most names of values are words as they stand; {@link #name} quotes the others. Two slashes where a word
 * could begin open a comment, which ends with its line.
 */
final class Lexer {
    private static final String MARKS = "()[]{}<>,=#";
    private static final String COMMENT = "//";
    private static final String ARROW = "=>";
    private static final String ESCAPED = "\"\\\n\r\t";
    private static final String ESCAPES = "\"\\nrt";
    private static final int UNICODE_DIGITS = 4;

    /** What a token is. */
    enum Kind {
        WORD,
        STRING,
        MARK,
        END
    }

    /**
     * One token.
     *
     * @param text the characters; of a string, without quotes and escapes
     * @param line from 1 on
     * @param column from 1 on
     */
    record Token(Kind kind, String text, int line, int column) {
        boolean isMark(String mark) {
            return kind == Kind.MARK && text.equals(mark);
        }

        boolean isWord(String word) {
            return kind == Kind.WORD && text.equals(word);
        }

        /** How messages show this token. */
        String shown() {
            return switch (kind) {
                case WORD, MARK -> '"' + text + '"';
                case STRING -> "the string " + quoted(text);
                case END -> "the end of the text";
            };
        }
    }

    private final String text;
    private final List<Token> tokens = new ArrayList<>();
    private int position;
    private int line = 1;
    private int lineStart;

    private Lexer(String text) {
        this.text = text;
    }

    /**
     * The tokens of {@code text}; the last is the only one of kind {@link Kind#END}.
     *
     * @throws GraphSyntaxException if a string does not end on its line, or has an unknown escape
     */
    static List<Token> tokens(String text) {
        Lexer lexer = new Lexer(text);
        while (lexer.position < text.length()) {
            lexer.next();
        }
        lexer.add(Kind.END, "", lexer.position);
        return lexer.tokens;
    }

    private void next() {
        char first = text.charAt(position);
        if (Character.isWhitespace(first)) {
            position++;
            if (first == '\n') {
                line++;
                lineStart = position;
            }
        } else if (text.startsWith(COMMENT, position)) {
            int end = text.indexOf('\n', position);
            position = end < 0 ? text.length() : end;
        } else if (first == '"') {
            string();
        } else if (MARKS.indexOf(first) >= 0) {
            int start = position;
            position += text.startsWith(ARROW, position) ? ARROW.length() : 1;
            add(Kind.MARK, text.substring(start, position), start);
        } else {
            int start = position;
            while (position < text.length() && isWordCharacter(text.charAt(position))) {
                position++;
            }
            add(Kind.WORD, text.substring(start, position), start);
        }
    }

    private void add(Kind kind, String content, int start) {
        tokens.add(new Token(kind, content, line, start - lineStart + 1));
    }

    private void string() {
        int start = position++;
        StringBuilder content = new StringBuilder();
        while (current("a closing quote") != '"') {
            char character = text.charAt(position++);
            content.append(character == '\\' ? escape() : character);
        }
        position++;
        add(Kind.STRING, content.toString(), start);
    }

    /** The character at this place of a string, which must not be beyond its line. */
    private char current(String expected) {
        boolean ended = position >= text.length() || text.charAt(position) == '\n';
        if (ended) {
            throw failure(expected, "the end of the line");
        }
        return text.charAt(position);
    }

    private char escape() {
        char character = current("an escape");
        int known = ESCAPES.indexOf(character);
        if (known >= 0) {
            position++;
            return ESCAPED.charAt(known);
        }
        if (character != 'u') {
            throw failure("one of \" \\ n r t u after a backslash", "\"" + character + '"');
        }
        position++;
        int code = 0;
        for (int i = 0; i < UNICODE_DIGITS; i++) {
            int digit = Character.digit(current("four hexadecimal digits"), 16);
            if (digit < 0) {
                throw failure("a hexadecimal digit", "\"" + text.charAt(position) + '"');
            }
            code = 16 * code + digit;
            position++;
        }
        return (char) code;
    }

    private GraphSyntaxException failure(String expected, String found) {
        return new GraphSyntaxException(line, position - lineStart + 1, expected, found);
    }

    private static boolean isWordCharacter(char character) {
        return character != '"'
                && MARKS.indexOf(character) < 0
                && !Character.isWhitespace(character)
                && !Character.isISOControl(character);
    }

    /** A name as the text form has it: as it stands if that is one word, else in quotes. */
    static String name(String name) {
        boolean word = !name.isEmpty()
                && !name.startsWith(COMMENT)
                && name.chars().allMatch(character -> isWordCharacter((char) character));
        return word ? name : quoted(name);
    }

    /** Text in quotes, on one line. */
    static String quoted(String content) {
        StringBuilder quoted = new StringBuilder("\"");
        for (int i = 0; i < content.length(); i++) {
            char character = content.charAt(i);
            int escaped = ESCAPED.indexOf(character);
            if (escaped >= 0) {
                quoted.append('\\').append(ESCAPES.charAt(escaped));
            } else if (Character.isISOControl(character)) {
                quoted.append(String.format("\\u%04x", (int) character));
            } else {
                quoted.append(character);
            }
        }
        return quoted.append('"').toString();
    }
}
