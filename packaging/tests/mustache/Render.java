// Renders every pair of a file with mustache.java, the values turned into Java's as Cosmos does it,
// and prints the pairs with the results. See generate.sh.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.github.mustachejava.DefaultMustacheFactory;
import com.github.mustachejava.TemplateFunction;
import java.io.File;
import java.io.PrintStream;
import java.io.StringReader;
import java.io.StringWriter;
import java.io.Writer;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

public class Render {
  static final ObjectMapper JSON =
      new ObjectMapper().enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS);

  public static void main(String[] args) throws Exception {
    PrintStream out = new PrintStream(System.out, false, "UTF-8");
    out.println("[");
    String separator = "";
    for (JsonNode pair : JSON.readTree(new File(args[0]))) {
      ObjectNode row = JSON.createObjectNode();
      String template = pair.get("template").asText();
      row.put("template", template);
      row.set("value", pair.get("value"));
      try {
        String result = render(template, pair.get("value"));
        // The whole document with the function in it: its address differs from run to run.
        if (result.contains("Lambda")) continue;
        row.put("result", result);
      } catch (Throwable e) {
        row.putNull("result");
      }
      out.print(separator + JSON.writeValueAsString(row));
      separator = ",\n";
    }
    out.println("\n]");
    out.flush();
  }

  static String render(String template, JsonNode document) {
    DefaultMustacheFactory factory = new DefaultMustacheFactory() {
      @Override
      public void encode(String value, Writer writer) {
        try {
          writer.write(value);
        } catch (java.io.IOException e) {
          throw new RuntimeException(e);
        }
      }
    };
    Map<String, Object> scope = new LinkedHashMap<>();
    document.fields().forEachRemaining(f -> scope.put(f.getKey(), java(f.getValue(), false)));
    scope.put("asJson", (TemplateFunction) name -> {
      JsonNode value = name == null ? null : document.get(name);
      return value != null && value.isTextual() ? value.textValue() : "null";
    });
    StringWriter out = new StringWriter();
    factory.compile(new StringReader(template), "template").execute(out, scope);
    return out.toString();
  }

  static Object java(JsonNode json, boolean inList) {
    if (json.isNull()) return null;
    if (json.isBoolean()) return json.booleanValue();
    if (json.isNumber()) {
      BigDecimal number = json.decimalValue();
      try {
        return number.toBigIntegerExact();
      } catch (ArithmeticException e) {
        return number.doubleValue();
      }
    }
    if (json.isTextual()) return inList ? text(json.textValue()) : cut(text(json.textValue()));
    if (json.isArray()) {
      List<Object> list = new ArrayList<>();
      for (JsonNode entry : (ArrayNode) json) list.add(java(entry, true));
      return list;
    }
    Map<String, Object> map = new LinkedHashMap<>();
    json.fields().forEachRemaining(f -> map.put(f.getKey(), java(f.getValue(), false)));
    return map;
  }

  static String cut(String quoted) {
    return quoted.substring(1, quoted.length() - 1);
  }

  /** A text in quotes as circe prints it. */
  static String text(String text) {
    StringBuilder out = new StringBuilder("\"");
    for (char c : text.toCharArray()) {
      switch (c) {
        case '"': out.append("\\\""); break;
        case '\\': out.append("\\\\"); break;
        case '\b': out.append("\\b"); break;
        case '\f': out.append("\\f"); break;
        case '\n': out.append("\\n"); break;
        case '\r': out.append("\\r"); break;
        case '\t': out.append("\\t"); break;
        default:
          if (Character.isISOControl(c)) out.append(String.format("\\u%04x", (int) c));
          else out.append(c);
      }
    }
    return out.append('"').toString();
  }
}
