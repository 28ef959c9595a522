// As closer.c, with the JDK's JSSE, of which close() says user_canceled before close_notify in TLS 1.3.
import java.io.FileInputStream;
import java.net.InetAddress;
import java.security.KeyStore;
import java.security.cert.X509Certificate;
import javax.net.ssl.*;

public class Closer {
    static final TrustManager ANYBODY = new X509TrustManager() {
        public void checkClientTrusted(X509Certificate[] chain, String type) {}
        public void checkServerTrusted(X509Certificate[] chain, String type) {}
        public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
    };

    public static void main(String[] words) throws Exception {
        boolean isServer = words[0].equals("server");
        InetAddress here = InetAddress.getByName("127.0.0.1");
        KeyManager[] keys = null;
        if (isServer) { // a PKCS#12 file and its passphrase
            KeyStore store = KeyStore.getInstance("PKCS12");
            store.load(new FileInputStream(words[4]), words[5].toCharArray());
            KeyManagerFactory factory = KeyManagerFactory.getInstance("PKIX");
            factory.init(store, words[5].toCharArray());
            keys = factory.getKeyManagers();
        }
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys, new TrustManager[] {ANYBODY}, null);
        int port = Integer.parseInt(words[1]);
        SSLSocket socket;
        if (isServer) {
            SSLServerSocket listener = (SSLServerSocket) context.getServerSocketFactory().createServerSocket(port, 1, here);
            System.out.println("listening");
            socket = (SSLSocket) listener.accept();
        } else {
            socket = (SSLSocket) context.getSocketFactory().createSocket(here, port);
        }
        byte[] data = new byte[Integer.parseInt(words[2])];
        for (int i = 0; i < data.length; i++)
            data[i] = (byte) (i % 251);
        socket.getOutputStream().write(data);
        if (words[3].equals("half")) {
            socket.shutdownOutput();
            while (socket.getInputStream().read() >= 0) {}
        }
        socket.close();
    }
}
