// usage: java -cp /usr/share/java/postgresql.jar RoundTrip.java
//        (PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD say where)
//
// A lock by lock_request() and by lock_event(), with JDBC.  The server builds
// the requests and takes the replies apart: no JSON library is needed.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.Objects;

public class RoundTrip {

    /** The members of all replies; null where one is absent. */
    record Reply(Boolean success, String code, Boolean acquired, String callingFn, Integer timeout, Long token,
            Boolean released, Boolean exists, Integer lifetime, String app) {
    }

    /** What is null is left out. */
    static Reply lockRequest(Connection connection, String operation, String key, Integer timeout, String callingFn,
            String onConflict, Long token) throws SQLException {
        String sql = """
            SELECT (r ->> 'success')::boolean AS success, r ->> 'code' AS code,
                (r ->> 'acquired')::boolean AS acquired, r ->> 'callingFn' AS calling_fn,
                (r ->> 'timeout')::integer AS timeout, (r ->> 'token')::bigint AS token,
                (r ->> 'released')::boolean AS released, (r ->> 'exists')::boolean AS exists,
                (r #>> '{lockInfo,timeoutSeconds}')::integer AS lifetime, r #>> '{lockInfo,appId}' AS app
            FROM lock_request(jsonb_strip_nulls(jsonb_build_object(
                'operation', ?::text, 'key', ?::text, 'timeout', ?::integer, 'callingFn', ?::text,
                'onConflict', ?::text, 'token', ?::bigint))) AS r""";

        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setString(1, operation);
            statement.setString(2, key);
            statement.setObject(3, timeout);
            statement.setString(4, callingFn);
            statement.setString(5, onConflict);
            statement.setObject(6, token);
            try (ResultSet r = statement.executeQuery()) {
                r.next();
                return new Reply(r.getObject("success", Boolean.class), r.getString("code"),
                    r.getObject("acquired", Boolean.class), r.getString("calling_fn"),
                    r.getObject("timeout", Integer.class), r.getObject("token", Long.class),
                    r.getObject("released", Boolean.class), r.getObject("exists", Boolean.class),
                    r.getObject("lifetime", Integer.class), r.getString("app"));
            }
        }
    }

    static Reply acquire(Connection connection, String key, Integer timeout) throws SQLException {
        return lockRequest(connection, "acquire", key, timeout, "report", null, null);
    }

    static Reply check(Connection connection, String key) throws SQLException {
        return lockRequest(connection, "check", key, null, null, null, null);
    }

    static boolean release(Connection connection, String key, long token) throws SQLException {
        return lockRequest(connection, "release", key, null, null, null, token).released();
    }

    static String lockEvent(Connection connection, String action, String payload, String meta) throws SQLException {
        String sql = "SELECT lock_event(?, ?::jsonb, ?::jsonb)";

        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setString(1, action);
            statement.setString(2, payload);
            statement.setString(3, meta);
            try (ResultSet result = statement.executeQuery()) {
                result.next();
                return result.getString(1);
            }
        }
    }

    static void expect(String what, Object actual, Object expected) {
        if (!Objects.equals(actual, expected)) {
            System.out.println("not ok - " + what + ": " + actual + " instead of " + expected);
            System.exit(1);
        }
    }

    static void requests(Connection first, Connection second, String user) throws SQLException {
        String key = "java-report";

        Reply lock = acquire(first, key, 300);
        expect("acquire", lock, new Reply(null, null, true, "report", 300, lock.token(), null, null, null, null));
        System.out.println("ok - acquired with a timeout");

        try (PreparedStatement statement = first.prepareStatement("SELECT token FROM lock_check(?)")) {
            statement.setString(1, key);
            try (ResultSet result = statement.executeQuery()) {
                result.next();
                expect("token", lock.token(), result.getLong(1));
            }
        }
        System.out.println("ok - the token is a long, and exact");

        expect("second", acquire(second, key, 300),
            new Reply(null, null, false, "report", null, null, null, null, null, null));
        Reply conflict = lockRequest(second, "acquire", key, null, null, "error", null);
        expect("conflict", conflict.success(), false);
        expect("conflict", conflict.code(), "LOCK_CONFLICT");
        System.out.println("ok - a second connection is refused");

        expect("check", check(second, key), new Reply(null, null, null, null, null, null, null, true, 300, user));
        System.out.println("ok - check says who holds it");

        expect("another token", release(first, key, lock.token() + 1), false);
        expect("its token", release(first, key, lock.token()), true);
        expect("again", release(first, key, lock.token()), false);
        expect("check", check(second, key).exists(), false);
        System.out.println("ok - released with its token, once");

        for (Reply reply : new Reply[] {
                acquire(first, "large-data-file.csv", 1800), acquire(first, key, 21600), acquire(first, key, 0),
                acquire(first, null, null), lockRequest(first, null, key, null, null, null, null)}) {
            expect("bad input", reply.success(), false);
            expect("bad input", reply.code(), "VALIDATION_ERROR");
        }
        System.out.println("ok - bad input is a VALIDATION_ERROR");
    }

    static void events(Connection first, Connection second) throws SQLException {
        String meta = """
            {"inputElement": "parameters", "outputElement": "result",
             "parameters": {"expiry": 10000, "allowNoLock": true}}""";
        String event = """
            {"parameters": {"id": 9223372036854775807, "whole": 12345678901234567890, "amount": 12.50""";
        String plain = event + "}}";
        String locked = event + ", \"result\": {\"locked\": true}}}";
        String notLocked = event + ", \"result\": {\"locked\": false}}}";

        expect("TryLock", lockEvent(first, "TryLock", plain, meta), locked);
        expect("TryLock", lockEvent(second, "TryLock", plain, meta), notLocked);
        expect("CheckLock", lockEvent(second, "CheckLock", plain, meta), locked);
        expect("expiry", check(second, "9223372036854775807").lifetime(), 10);
        expect("Unlock", lockEvent(first, "Unlock", plain, meta), plain);
        expect("CheckLock", lockEvent(second, "CheckLock", plain, meta), notLocked);
        System.out.println("ok - TryLock, CheckLock and Unlock; the numbers of the payload are unchanged");

        String state = "went through";
        try {
            lockEvent(first, "TryLock", "{\"id\": 1}", "{\"parameters\": {\"expiry\": 0}}");
        } catch (SQLException e) {
            state = e.getSQLState();
        }
        expect("expiry 0", state, "22023");
        System.out.println("ok - a bad parameter raises");
    }

    static Connection connect() throws SQLException {
        String url = String.format("jdbc:postgresql://%s:%s/%s",
            System.getenv("PGHOST"), System.getenv("PGPORT"), System.getenv("PGDATABASE"));
        return DriverManager.getConnection(url, System.getenv("PGUSER"), System.getenv("PGPASSWORD"));
    }

    public static void main(String[] args) throws SQLException {
        try (Connection first = connect(); Connection second = connect()) {
            requests(first, second, System.getenv("PGUSER"));
            events(first, second);
        }
    }
}
