#include "options.hpp"

#include <fmt/format.h>

#include "base/log.hpp"
#include "cors.hpp"

namespace parley::chatd {

void declare(base::Cli& cli, Options& o) {
    auto serve = cli.verb("serve", "answer clients over HTTP");
    serve
        .option("--bind", o.bind,
                "address:port to listen on, or unix:PATH; port 0 takes a free one")
        .option("--state", o.state, "state folder")
        .env("PARLEY_STATE")
        .option("--tls-cert", o.tls_cert, "certificate chain, PEM; with --tls-key: serve HTTPS")
        .option("--tls-key", o.tls_key, "private key of the certificate, PEM")
        .flag("--no-auth", o.no_auth, "take requests without a key; loopback only")
        .flag("--allow-unfiltered", o.allow_unfiltered,
              "deliver answers without a filter's stamp; on the command line only")
        .flag_only()
        .option("--filter", o.filters, "endpoint of a safety-filter; may be repeated")
        .option("--store-endpoint", o.store_endpoint, "endpoint of convstore's commands")
        .option("--origin", o.origins,
                "origin of the page behind a proxy, such as https://chat.example; may be repeated")
        .option("--cors-origin", o.cors_origins,
                "origin of pages elsewhere that may use the API with a key, or *; may be repeated")
        .option("--operator-org", o.operator_orgs,
                "organisation whose members see the operator's view; may be repeated")
        .flag("--reuse-port", o.reuse_port,
              "let several chatd listen at this address; the kernel spreads the connections")
        .flag(
            "--take-over", o.take_over,
            "take the listening socket of the oldest chatd of this state and address, which drains")
        .option("--metrics", o.metrics, "loopback address:port of /metrics; empty is none")
        .option("--model-wildcard", o.model_wildcard, "model that unknown names mean; empty: 404")
        .flag("--no-request-id-idempotency", o.no_request_id_idempotency,
              "take only idempotency-key as a key, not x-request-id")
        .flag("--strict-fields", o.strict_fields, "refuse unknown top-level fields with 400")
        .flag("--strict-version", o.strict_version,
              "refuse sampling fields under anthropic-version 2026-10-21")
        .option("--log-level", o.log_level, "least level that is logged")
        .choices({"debug", "info", "warn", "error"});
    serve
        .option("--limits", o.limits, "limits of all requests together, a JSON object as of an org")
        .option("--reserve", o.reserve,
                "output tokens that a limit reserves: max_tokens, or the "
                "mean of earlier answers")
        .choices({"max", "expected"})
        .option("--price-input", o.price_input, "price of a million prompt tokens, for spend")
        .range(0, 1e9)
        .option("--price-output", o.price_output, "price of a million answer tokens, for spend")
        .range(0, 1e9)
        .option("--price", o.prices, "MODEL=INPUT,OUTPUT: other prices of a model; may be repeated")
        .option("--limits-subjects", o.limits_subjects,
                "orgs, keys and users with limits that are counted at once")
        .range(16, 16'777'216)
        .option("--limits-reservations", o.limits_reservations,
                "running requests that limits can count")
        .range(16, 1'048'576);
    serve
        .duration("--resume-grace", o.resume_grace_ms,
                  "how long a stream whose client left goes on and can be resumed")
        .duration("--drain-timeout", o.drain_ms, "what still runs then is interrupted")
        .duration("--handover-timeout", o.handover_ms,
                  "what still runs then after a successor has taken over is interrupted")
        .duration("--ttft", o.ttft_ms, "wait for a first event, beside three times its own prefill")
        .duration("--stall", o.stall_ms, "pause that recovery may take in mid-answer")
        .duration("--patience", o.patience_ms, "the same before the first byte")
        .duration("--total-base", o.total_base_ms, "fixed part of an answer's whole time")
        .duration("--ping", o.ping_ms, "longest silence of a stream before a ping")
        .duration("--journal-flush", o.journal_ms, "how long deltas are gathered for the journal")
        .duration("--batch-expiry", o.batch_expiry_ms,
                  "what of a message batch has not run by then expires")
        .duration("--idle-timeout", o.idle_ms, "keep-alive without a request")
        .option("--expect-prefill", o.prefill_tokens_per_s,
                "prompt tokens a second that deadlines count with")
        .range(1, 1e7)
        .option("--expect-decode", o.decode_tokens_per_s,
                "answer tokens a second that deadlines count with")
        .range(0.1, 1e6);
    serve
        .option("--titles", o.titles,
                "title of a conversation that has none: made by its model, the question's beginning, "
                "or none")
        .choices({"model", "question", "off"});
    serve.duration("--session-ttl", o.session_ms, "how long a login lasts")
        .duration("--session-renew", o.session_renew_ms, "age of a session's token to replace it")
        .duration("--login-link-ttl", o.login_link_ms,
                  "how long the one-time login link of a start is good; 0 makes none")
        .duration("--events-window", o.events_window_ms,
                  "how far back a device's feed is followed; below convstore's --feed-ttl");
    serve.size("--ws-message-max", o.ws_message_max, "largest message of a WebSocket; over it 1009")
        .size("--ws-queue", o.ws_queue_max,
              "bytes that wait for a WebSocket's client; over it 1008, and it is cut")
        .option("--ws-streams", o.ws_streams_max, "requests of one WebSocket at once; over it 429")
        .range(1, 10'000)
        .duration("--ws-ping", o.ws_ping_ms, "longest silence of a WebSocket before a ping")
        .duration("--ws-timeout", o.ws_timeout_ms,
                  "a WebSocket's client that is not heard for so long is closed");
    serve
        .option("--presence-users", o.presence_users_max,
                "connected users that are told to the other chatd of the state")
        .range(0, 700'000);
    serve.size("--body-max", o.body_bytes_max, "largest request body; over it 413")
        .size("--batch-body-max", o.batch_body_bytes_max, "largest body of a message batch")
        .option("--batch-concurrency", o.batch_concurrency,
                "entries of message batches that are under way at once")
        .range(1, 4096)
        .size("--stream-buffer", o.stream_bytes_max, "events of one answer kept for its readers")
        .size("--client-buffer", o.client_bytes_max, "bytes that wait for a client's socket")
        .option("--answers-max", o.answers_max, "answers at once; over it 529")
        .range(1, 1'000'000)
        .option("--connections-max", o.connections_max, "connections at once; over it 503")
        .option("--connections-per-address", o.connections_per_address_max,
                "connections of one address; 0 is no bound")
        .option("--credit", o.credit, "events of one answer that are under way or unread")
        .range(4, 65'536)
        .option("--context-messages", o.context_messages_max,
                "messages of a conversation that are looked at for a prompt")
        .range(1, 10'000)
        .option("--store-queue", o.store_queue_max,
                "commands that wait for the store; over it 503");
}

bool is_loopback(const std::string& address) {
    const auto starts = [&](std::string_view with) { return address.rfind(with, 0) == 0; };
    return starts("127.") || starts("localhost:") || starts("[::1]:") || starts("unix:");
}

base::Result<void> check(const Options& o) {
    if (o.no_auth && !is_loopback(o.bind))
        return base::fail(base::Errc::config,
                          fmt::format("--no-auth is for loopback only, not for '{}'", o.bind));
    if (o.tls_cert.empty() != o.tls_key.empty())
        return base::fail(base::Errc::config, "--tls-cert and --tls-key belong together");
    if (o.ws_message_max < 1024)
        return base::fail(base::Errc::config, "--ws-message-max is 1KiB at least");
    if (o.ws_timeout_ms <= o.ws_ping_ms)
        return base::fail(base::Errc::config, "--ws-timeout is longer than --ws-ping");
    if (o.session_ms < 60'000)
        return base::fail(base::Errc::config, "--session-ttl is one minute at least");
    for (const std::string& origin : o.origins)
        if (origin.find("://") == std::string::npos || origin.back() == '/')
            return base::fail(base::Errc::config,
                              fmt::format("--origin is SCHEME://HOST[:PORT], not '{}'", origin));
    for (const std::string& origin : o.cors_origins)
        if (!is_cors_origin(origin))
            return base::fail(
                base::Errc::config,
                fmt::format("--cors-origin is SCHEME://HOST[:PORT] or *, not '{}'", origin));
    if (o.reuse_port && o.bind.rfind("unix:", 0) == 0)
        return base::fail(base::Errc::config, "--reuse-port is for TCP, not for unix:PATH");
    if (auto level = base::parse_level(o.log_level); !level) return base::fail(level.error());
    return {};
}

}  // namespace parley::chatd
