/** Chats with a server by the JDK's own HTTP client as it is, which offers HTTP/2 in each request. */

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

public class Client {
    private final HttpClient http = HttpClient.newHttpClient();
    private final String url = System.getenv("MYLLM_URL");

    public static void main(String[] arguments) throws Exception {
        Client client = new Client();
        client.whole(arguments[0]);
        client.streamed(arguments[0]);
        client.toolLoop(arguments[1], arguments[2]);
    }

    private HttpRequest chat(String model, String messages, String more) {
        String body = """
            {"model": "%s", "messages": [%s], "temperature": 0%s}""".formatted(model, messages, more);
        return HttpRequest.newBuilder(URI.create(url + "/v1/chat/completions"))
            .header("Content-Type", "application/json")
            .POST(BodyPublishers.ofString(body))
            .build();
    }

    private String answer(HttpRequest request) throws Exception {
        HttpResponse<String> response = http.send(request, BodyHandlers.ofString());
        System.out.println(response.statusCode() + " " + response.version());
        return response.body();
    }

    private void whole(String model) throws Exception {
        System.out.println("whole: " + field("content", answer(chat(model, user(), ""))));
    }

    private void streamed(String model) throws Exception {
        HttpRequest request = chat(model, user(), ", \"stream\": true");
        List<String> lines = http.send(request, BodyHandlers.ofLines()).body().toList();
        String text = lines.stream()
            .filter(line -> line.contains("\"content\":\""))
            .map(line -> field("content", line))
            .collect(Collectors.joining());
        System.out.println("streamed: " + text);
        System.out.println("end: " + lines.stream().filter(line -> !line.isEmpty())
            .reduce((first, last) -> last).orElse(""));
    }

    private void toolLoop(String model, String tool) throws Exception {
        String tools = ", \"tools\": [" + tool + "]";
        String asked = answer(chat(model, user(), tools));
        String called = field("name", asked);
        String given = field("arguments", asked);
        System.out.println("called: " + called + " " + given);
        String call = """
            {"role": "assistant", "content": null, "tool_calls": [{"id": "%s", "type": "function",
              "function": {"name": "%s", "arguments": "%s"}}]},
            {"role": "tool", "tool_call_id": "%s", "content": "18 degrees"}"""
            .formatted(field("id", asked.substring(asked.indexOf("tool_calls"))), called, given,
                field("id", asked.substring(asked.indexOf("tool_calls"))));
        String second = answer(chat(model, user() + ", " + call, tools));
        System.out.println("second: " + field("content", second));
    }

    private static String user() {
        return """
            {"role": "user", "content": "What is the capital of France?"}""";
    }

    /** Returns a text of the JSON, with its escapes. */
    private static String field(String name, String json) {
        Matcher found = Pattern.compile("\"" + name + "\":\\s*\"((?:[^\"\\\\]|\\\\.)*)\"")
            .matcher(json);
        return found.find() ? found.group(1) : "nothing in " + json;
    }
}
