import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Reads models and writes them again, for scripts/roundtrip.sh.
 *
 * <pre>
 *   java -cp onnx-prune.jar RoundTrip.java LIST
 * </pre>
 *
 * Each line of LIST is a model, a tab, and the file to write. A line goes out for each: "ok", or why not.
 */
public final class RoundTrip {
    public static void main(String[] arguments) throws IOException {
        for (String line : Files.readAllLines(Path.of(arguments[0]))) {
            String[] files = line.split("\t");
            System.out.println(copied(Path.of(files[0]), Path.of(files[1])));
        }
    }

    private static String copied(Path from, Path to) {
        try {
            Model model = ModelReader.read(from);
            Program.of(model);
            GraphChecker.check(model, "import");
            ModelWriter.write(model, to, model.externalData());
            return "ok";
        } catch (RuntimeException | StackOverflowError e) {
            return e.toString().replace('\n', ' ');
        }
    }
}
