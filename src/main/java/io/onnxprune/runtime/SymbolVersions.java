// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashSet;
import java.util.Set;

/**
 * Versions of symbols in a shared library for Linux on 64 bits (ELF; the layout is that of the System V ABI and of the
 * GNU symbol versions).
 *
 * <p>Microsoft's JNI library asks for the functions of ONNX Runtime in exactly its own version, and the dynamic loader
 * refuses a library of another one. The functions are the same: they hand out the C API, which only grows.
 */
final class SymbolVersions {
    private static final int VERSIONS_OF_SYMBOLS = 0x6fffffff;
    private static final int NEEDED_VERSIONS = 0x6ffffffe;

    /** Flag of a needed version that may be missing. */
    private static final int WEAK = 2;

    /** The version index of a symbol that is taken in any version. */
    private static final short ANY = 1;

    private final ByteBuffer elf;
    private final Set<Integer> released = new HashSet<>();

    private SymbolVersions(ByteBuffer elf) {
        this.elf = elf;
    }

    /**
     * The library with symbols of {@code needed} in any version.
     *
     * @param library a whole ELF file of 64 bits and little endian, which is changed in place; any other file is left
     *     as it is
     * @param needed beginning of the name of the library that has the symbols
     */
    static byte[] release(byte[] library, String needed) {
        ByteBuffer elf = ByteBuffer.wrap(library).order(ByteOrder.LITTLE_ENDIAN);
        boolean known = library.length > 64 && elf.getInt(0) == 0x464c457f && library[4] == 2 && library[5] == 1;
        if (known) {
            SymbolVersions versions = new SymbolVersions(elf);
            versions.forEachSection(NEEDED_VERSIONS, section -> versions.releaseNeeded(section, needed));
            versions.forEachSection(VERSIONS_OF_SYMBOLS, versions::releaseSymbols);
        }
        return library;
    }

    private interface SectionAction {
        void apply(int header);
    }

    private void forEachSection(int type, SectionAction action) {
        int headers = Math.toIntExact(elf.getLong(0x28));
        for (int i = 0; i < elf.getShort(0x3c); i++) {
            int header = header(headers, i);
            if (elf.getInt(header + 4) == type) {
                action.apply(header);
            }
        }
    }

    private int header(int headers, int index) {
        return headers + index * elf.getShort(0x3a);
    }

    private int offset(int header) {
        return Math.toIntExact(elf.getLong(header + 0x18));
    }

    /** Marks the versions that a library needs of another one as weak. */
    private void releaseNeeded(int header, String needed) {
        int names = offset(header(Math.toIntExact(elf.getLong(0x28)), elf.getInt(header + 0x28)));
        int file = offset(header);
        for (int files = elf.getInt(header + 0x2c); files > 0; files--) {
            if (text(names + elf.getInt(file + 4)).startsWith(needed)) {
                int version = file + elf.getInt(file + 8);
                for (int count = elf.getShort(file + 2); count > 0; count--) {
                    elf.putShort(version + 4, (short) (elf.getShort(version + 4) | WEAK));
                    released.add((int) elf.getShort(version + 6));
                    version += elf.getInt(version + 12);
                }
            }
            file += elf.getInt(file + 12);
        }
    }

    private void releaseSymbols(int header) {
        int end = offset(header) + Math.toIntExact(elf.getLong(header + 0x20));
        for (int at = offset(header); at < end; at += 2) {
            if (released.contains((int) elf.getShort(at))) {
                elf.putShort(at, ANY);
            }
        }
    }

    private String text(int at) {
        StringBuilder text = new StringBuilder();
        for (int i = at; elf.get(i) != 0; i++) {
            text.append((char) elf.get(i));
        }
        return text.toString();
    }
}
