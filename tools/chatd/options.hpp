// Options of chatd, with their defaults. chatd(8) is the page for people.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/cli.hpp"

namespace parley::chatd {

struct Options {
    std::string bind = "127.0.0.1:8080";
    std::string state;  // "": $PARLEY_STATE and its defaults
    std::string tls_cert, tls_key;
    bool no_auth = false;
    bool allow_unfiltered = false;
    bool no_request_id_idempotency = false;
    std::vector<std::string> filters;  // endpoints; empty: run/filter.sock of the state
    std::string store_endpoint;        // "": run/convstore.sock of the state
    std::string metrics;               // "": none
    std::string model_wildcard;        // unknown model names mean this one; "": they are 404
    bool strict_fields = false;
    bool strict_version = false;
    std::string log_level = "info";

    std::string limits = "{}";                 // of all requests together; JSON as of an org
    std::string reserve = "max";               // or expected
    double price_input = 1, price_output = 5;  // of a million tokens; what spend is counted in
    std::vector<std::string> prices;           // MODEL=INPUT,OUTPUT
    uint32_t limits_subjects = 65'536;
    uint32_t limits_reservations = 16'384;

    std::vector<std::string> origins;       // of pages besides our own address
    std::vector<std::string> cors_origins;  // of pages elsewhere that have a key; "*": all
    bool reuse_port = false;
    bool take_over = false;
    int64_t handover_ms = 600'000;
    uint32_t presence_users_max = 65'536;
    // WebSockets
    uint64_t ws_message_max = 4u << 20;
    uint64_t ws_queue_max = 1u << 20;
    uint32_t ws_streams_max = 64;
    int64_t ws_ping_ms = 20'000;
    int64_t ws_timeout_ms = 60'000;
    std::vector<std::string> operator_orgs;  // names; their members see the operator's view

    std::string titles = "model";  // of conversations without one: model, question, off

    int64_t session_ms = 14ll * 24 * 3600'000;
    int64_t session_renew_ms = 3600'000;
    int64_t events_window_ms = 6ll * 24 * 3600'000;
    int64_t login_link_ms = 900'000;  // 0: none
    int64_t resume_grace_ms = 5'000;
    int64_t drain_ms = 15'000;
    int64_t ttft_ms = 30'000;
    int64_t stall_ms = 30'000;
    int64_t patience_ms = 2'000;
    int64_t total_base_ms = 10'000;
    int64_t ping_ms = 10'000;
    int64_t journal_ms = 30;
    int64_t idle_ms = 75'000;
    // Guesses of a slow machine, for deadlines only.
    double prefill_tokens_per_s = 100;
    double decode_tokens_per_s = 5;

    uint64_t body_bytes_max = 32'000'000;
    uint64_t batch_body_bytes_max = 256'000'000;  // on disk, while it is read
    uint32_t batch_concurrency = 16;              // entries under way, of all batches
    int64_t batch_expiry_ms = 24ll * 3600 * 1000;
    uint64_t stream_bytes_max = 4u << 20;
    uint64_t client_bytes_max = 64u << 10;  // written and not yet taken by a client's socket
    uint32_t answers_max = 4096;
    uint32_t connections_max = 10'000;
    uint32_t connections_per_address_max = 1'000;
    uint32_t credit = 64;
    uint32_t context_messages_max = 2'000;
    uint32_t store_queue_max = 4096;
};

// Says every option to the command line, bound to `options`.
void declare(base::Cli& cli, Options& options);
// What no single option can be checked for by itself.
base::Result<void> check(const Options& options);
bool is_loopback(const std::string& address);

}  // namespace parley::chatd
