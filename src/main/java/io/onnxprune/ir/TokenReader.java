// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import io.onnxprune.ir.Lexer.Kind;
import io.onnxprune.ir.Lexer.Token;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Locale;
import java.util.function.Supplier;

/** Goes through the tokens of a text once. What is not as expected is a {@link GraphSyntaxException} at its place. */
final class TokenReader {
    private final List<Token> tokens;
    private int position;

    /** A reader at the start of {@code text}. */
    TokenReader(String text) {
        this.tokens = Lexer.tokens(text);
    }

    /** The next token, which stays where it is. */
    Token peek() {
        return tokens.get(position);
    }

    /** The token after the next one; the last one at the end. */
    Token second() {
        return tokens.get(Math.min(position + 1, tokens.size() - 1));
    }

    /** Takes the next token, whatever it is. */
    Token take() {
        Token token = peek();
        position = Math.min(position + 1, tokens.size() - 1);
        return token;
    }

    /** Takes the next token if it is this mark. */
    boolean takes(String mark) {
        boolean found = peek().isMark(mark);
        if (found) {
            take();
        }
        return found;
    }

    /** Takes the next token, which must be this mark. */
    void mark(String mark) {
        if (!takes(mark)) {
            throw unexpected('"' + mark + '"');
        }
    }

    /** Takes the next token, which must be this word. */
    void word(String word) {
        if (!peek().isWord(word)) {
            throw unexpected('"' + word + '"');
        }
        take();
    }

    /**
     * Takes a name: a word, or a string.
     *
     * @param what how messages call it
     */
    String name(String what) {
        if (!isName(peek())) {
            throw unexpected(what);
        }
        return take().text();
    }

    static boolean isName(Token token) {
        return token.kind() == Kind.WORD || token.kind() == Kind.STRING;
    }

    /**
     * Takes a string.
     *
     * @param what how messages call it
     */
    String string(String what) {
        if (peek().kind() != Kind.STRING) {
            throw unexpected(what);
        }
        return take().text();
    }

    /**
     * Takes an integer.
     *
     * @param what how messages call it
     */
    long integer(String what) {
        return parsed(what, () -> Long.parseLong(anyWord(what)));
    }

    /**
     * Takes an element type.
     *
     * @throws GraphSyntaxException also if there is no type of this name
     */
    DType dtype() {
        return parsed("an element type such as float or int64", () -> {
            String word = anyWord("an element type such as float or int64");
            DType dtype = DType.valueOf(word.toUpperCase(Locale.ROOT));
            if (!GraphPrinter.name(dtype).equals(word)) {
                throw new IllegalArgumentException(word);
            }
            return dtype;
        });
    }

    /** Takes a string of base64. */
    byte[] base64() {
        return parsed("bytes in base64", () -> Base64.getDecoder().decode(string("bytes in base64, in quotes")));
    }

    /**
     * Takes a word.
     *
     * @param what how messages call it
     */
    String anyWord(String what) {
        if (peek().kind() != Kind.WORD) {
            throw unexpected(what);
        }
        return take().text();
    }

    /** What {@code parser} makes of the next token, which it takes; that token is the place of its failure. */
    <T> T parsed(String what, Supplier<T> parser) {
        Token token = peek();
        try {
            return parser.get();
        } catch (IllegalArgumentException e) {
            GraphSyntaxException failure = unexpected(what, token);
            failure.initCause(e);
            throw failure;
        }
    }

    /** Takes what {@code item} takes, again and again with commas between, up to the mark {@code end}, which it takes too. */
    <T> List<T> list(String end, Supplier<T> item) {
        List<T> items = new ArrayList<>();
        if (takes(end)) {
            return items;
        }
        items.add(item.get());
        while (!takes(end)) {
            if (!takes(",")) {
                throw unexpected("\",\" or \"" + end + '"');
            }
            items.add(item.get());
        }
        return items;
    }

    /** The failure that the next token is not {@code what}. */
    GraphSyntaxException unexpected(String what) {
        return unexpected(what, peek());
    }

    /** The failure that {@code token} is not {@code what}. */
    static GraphSyntaxException unexpected(String what, Token token) {
        return new GraphSyntaxException(token.line(), token.column(), what, token.shown());
    }
}
