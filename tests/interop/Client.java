import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Duration;
import java.util.Base64;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManagerFactory;

/**
 * Java as the client, as API Gateway seems to be one: the default key manager presents a
 * certificate only if the server's hints name its issuer.
 *
 * <p>{@code java Client URL CA [CERT KEY]} requests the URL with each HTTP client and each TLS
 * version, every time on a new connection, and prints a line for each, parted by tabs: client, TLS
 * version, {@code response} or {@code error}, and which.
 */
public class Client {
    private static final char[] NO_PASSWORD = {};

    interface Request {
        String response(URI uri, SSLContext context, String tls)
                throws IOException, InterruptedException;
    }

    public static void main(String[] args) throws Exception {
        for (String tls : new String[] {"TLSv1.2", "TLSv1.3"}) {
            report("HttpsURLConnection", Client::urlConnection, tls, args);
            report("HttpClient/1.1", Client::httpClient1, tls, args);
            report("HttpClient/2", Client::httpClient2, tls, args);
        }
    }

    private static void report(String client, Request request, String tls, String[] args)
            throws Exception {
        SSLContext context = context(args, tls);
        String outcome;
        try {
            outcome = "response\t" + request.response(URI.create(args[0]), context, tls);
        } catch (IOException error) {
            outcome = "error\t" + error;
        }
        System.out.println(client + "\t" + tls + "\t" + outcome.strip());
    }

    private static String urlConnection(URI uri, SSLContext context, String tls)
            throws IOException {
        HttpsURLConnection connection = (HttpsURLConnection) uri.toURL().openConnection();
        connection.setSSLSocketFactory(context.getSocketFactory());
        connection.setRequestProperty("Connection", "close");
        int status = connection.getResponseCode();
        String protocol = connection.getSSLSession().orElseThrow().getProtocol();
        try (InputStream body = connection.getInputStream()) {
            return protocol + " HTTP_1_1 " + status + " " + new String(body.readAllBytes());
        }
    }

    private static String httpClient1(URI uri, SSLContext context, String tls)
            throws IOException, InterruptedException {
        return httpClient(HttpClient.Version.HTTP_1_1, uri, context, tls);
    }

    private static String httpClient2(URI uri, SSLContext context, String tls)
            throws IOException, InterruptedException {
        return httpClient(HttpClient.Version.HTTP_2, uri, context, tls);
    }

    private static String httpClient(
            HttpClient.Version version, URI uri, SSLContext context, String tls)
            throws IOException, InterruptedException {
        SSLParameters parameters = new SSLParameters();
        parameters.setProtocols(new String[] {tls});
        HttpClient client =
                HttpClient.newBuilder()
                        .version(version)
                        .sslContext(context)
                        .sslParameters(parameters)
                        .build();
        HttpRequest request = HttpRequest.newBuilder(uri).timeout(Duration.ofSeconds(10)).build();
        HttpResponse<String> response =
                client.send(request, HttpResponse.BodyHandlers.ofString());
        String protocol = response.sslSession().orElseThrow().getProtocol();
        int status = response.statusCode();
        return protocol + " " + response.version() + " " + status + " " + response.body();
    }

    /** A context that trusts the CA and has the certificate to present, if there is one. */
    private static SSLContext context(String[] args, String tls) throws Exception {
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        trusted.setCertificateEntry("ca", certificate(args[1]));
        TrustManagerFactory trust =
                TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);

        KeyStore own = KeyStore.getInstance("PKCS12");
        own.load(null, null);
        if (args.length > 2) {
            Certificate[] chain = {certificate(args[2])};
            own.setKeyEntry("own", privateKey(args[3]), NO_PASSWORD, chain);
        }
        KeyManagerFactory keys =
                KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, NO_PASSWORD);

        // The context of a version has it as the highest: the server picks that.
        SSLContext context = SSLContext.getInstance(tls);
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    private static Certificate certificate(String file) throws Exception {
        try (InputStream pem = Files.newInputStream(Path.of(file))) {
            return CertificateFactory.getInstance("X.509").generateCertificate(pem);
        }
    }

    private static PrivateKey privateKey(String file) throws Exception {
        String base64 = Files.readString(Path.of(file)).replaceAll("-----.*-----", "");
        byte[] der = Base64.getMimeDecoder().decode(base64);
        return KeyFactory.getInstance("RSA").generatePrivate(new PKCS8EncodedKeySpec(der));
    }
}
