#include "options.hpp"

namespace parley::convstore {
namespace {

void state(base::Verb& verb, Options& o) {
    verb.option("--state", o.daemon.state, "state folder").env("PARLEY_STATE");
}
void store(base::Verb& verb, Options& o) {
    state(verb, o);
    verb.option("--store", o.store_dir, "store folder (default: store in the state folder)");
}
void admin(base::Verb& verb, Options& o) {
    state(verb, o);
    verb.flag("--json", o.json, "one JSON object a line");
    verb.duration("--wait", o.wait_ms, "how long to wait for the running store");
}

}  // namespace

base::Result<Options> parse_options(int argc, const char* const* argv) {
    Options o;
    base::Cli cli("convstore", "the store of parley: its only writer, and what follows its log");

    auto serve = cli.verb("serve", "write what askers command, publish every commit");
    o.daemon.declare(serve);
    serve.option("--bind", o.server.endpoint,
                 "endpoint for commands (default: run/convstore.sock)");
    serve.option("--changes-bind", o.server.changes_endpoint,
                 "endpoint that commits are published at (default: run/changes.sock)");
    serve.size("--map-size", o.server.writer.env.map_bytes,
               "address space for the store's file: its largest size");
    serve
        .option("--readers-max", o.server.writer.env.readers_max,
                "reader slots, over all processes")
        .range(16, 65'536);
    serve.option("--batch-max", o.server.batch_max, "commands in one commit at most")
        .range(1, 65'536);
    serve.option("--commands-max", o.server.commands_max,
                 "commands that wait at most; more are refused");
    serve.size("--command-bytes-max", o.server.writer.command_bytes_max,
               "size of one command at most");
    serve.duration("--idempotency-ttl", o.server.writer.idem_ttl_ms,
                   "how long an idempotency key is kept");
    serve.duration("--journal-ttl", o.server.writer.journal_ttl_ms,
                   "how long a journal is kept after its answer ended");
    serve.duration("--feed-ttl", o.server.writer.feed_ttl_ms, "how long a user's feed is kept");
    serve.duration("--gc-interval", o.server.gc_interval_ms,
                   "time between two steps of clearing away");
    serve.option("--gc-rows-max", o.server.writer.gc_rows_max, "rows looked at in one such step");
    serve.duration("--lock-wait", o.lock_wait_ms, "how long to wait for another writer to go");

    auto get = cli.verb("get", "print one row as JSON");
    store(get, o);
    get.option("TABLE", o.table, "the table, as in parley-store(5)").required();
    get.option("KEY", o.key, "the key: ids, numbers or hex, joined by '/'").required();

    auto tail = cli.verb("tail", "print every commit once, in order");
    store(tail, o);
    tail.flag("--follow", o.follow, "go on with what is committed from now on");
    tail.option("--since", o.since, "begin after this sequence number");
    tail.option("--cursor", o.cursor, "file that keeps the position over restarts");
    tail.option("--changes", o.server.changes_endpoint,
                "endpoint of the running store's commits (default: run/changes.sock)");
    tail.option("--partition", o.partition,
                "K/N: only the conversations whose id hashes to part K of N");
    tail.duration("--lease", o.lease_ms,
                  "how long a tail that stands still keeps its cursor from another");

    auto index = cli.verb("index", "keep the search index: follow the log");
    o.daemon.declare(index);
    index.option("--store", o.store_dir, "store folder (default: store in the state folder)");
    index.option("--search-dir", o.search_dir,
                 "folder of the index (default: search in the state folder)");
    index.option("--changes", o.server.changes_endpoint,
                 "endpoint of the running store's commits (default: run/changes.sock)");
    index.flag("--once", o.once, "end when the log's end is reached");
    index.flag("--rebuild", o.rebuild,
               "make the index anew first; a running indexer does it, if any");
    index.duration("--commit-interval", o.commit_interval_ms,
                   "how long a change may wait until the index is synced");
    index.duration("--lease", o.lease_ms,
                   "how long an indexer that stands still keeps another from its work");
    index.duration("--wait", o.wait_ms, "--rebuild: how long to wait for the running indexer");

    auto notify = cli.verb("notify", "tell users who are away that answers wait: follow the log");
    notify::NotifierOptions& n = o.notify;
    o.daemon.declare(notify);
    notify.option("--store", o.store_dir, "store folder (default: store in the state folder)");
    notify.option("--changes", o.server.changes_endpoint,
                  "endpoint of the running store's commits (default: run/changes.sock)");
    notify.option("--partition", o.partition,
                  "K/N: only the conversations whose id hashes to part K of N");
    notify.duration("--lease", o.lease_ms,
                    "how long one that stands still keeps another from its work");
    notify.duration("--delay", n.delay_ms,
                    "time from an answer's end until webhook and push, if it is unread");
    notify.duration("--email-delay", n.email_delay_ms, "the same until an e-mail");
    notify.duration("--retry", n.retry_ms, "time until the second attempt; it doubles");
    notify.duration("--retry-max", n.retry_max_ms, "longest time between two attempts");
    notify.option("--attempts-max", n.attempts_max, "attempts of one delivery").range(1, 100);
    notify.option("--pending-max", n.pending_max, "deliveries that wait; the log keeps the rest")
        .range(1, 1'000'000);
    notify.option("--requests-max", n.outgoing.requests_max, "requests at once").range(1, 1000);
    notify.duration("--request-timeout", n.outgoing.timeout_ms, "time for one request");
    notify.flag("--allow-private", n.outgoing.allow_private,
                "let users name addresses of this machine and of private networks");
    notify.option("--contact", n.contact, "mailto: or https: that push services are told");
    notify.option("--smtp-url", n.outgoing.smtp_url,
                  "smtp://HOST:PORT or smtps://; without it there is no e-mail");
    notify.option("--smtp-from", n.outgoing.smtp_from, "sender's address");
    notify.option("--smtp-starttls", n.outgoing.starttls, "encrypt a connection to smtp://")
        .choices({"no", "try", "required"});
    notify.option("--smtp-user", n.outgoing.smtp_user, "name at the mail server");
    notify.option("--smtp-password-file", o.smtp_password_file, "file with its password");
    notify.option("--ca-file", n.outgoing.ca_file,
                  "certificates to trust (default: the system's)");

    auto search = cli.verb("search", "find messages of one user");
    store(search, o);
    search.option("--search-dir", o.search_dir,
                  "folder of the index (default: search in the state folder)");
    search.option("--org", o.org, "name or id of the org").required();
    search.option("--user", o.user, "the user's name").required();
    search.option("--limit", o.limit, "results of one page").range(1, 100);
    search.option("--cursor", o.search_cursor, "next_cursor of the page before");
    search.option("QUERY", o.query, "words, \"phrases\", prefix*").required();

    auto dump = cli.verb("export", "print all rows as JSON Lines");
    store(dump, o);
    dump.option("--table", o.tables, "only this table; may be given again");
    dump.option("--org", o.org, "the conversations of one user of this org instead");
    dump.option("--user", o.user, "that user's name");
    dump.option("--format", o.format, "as JSON Lines, which import takes, or to be read")
        .choices({"jsonl", "markdown"});

    auto import = cli.verb("import", "bring in an export of ours, of ChatGPT or of Claude");
    admin(import, o);
    import.option("FILE", o.file, "JSON Lines of export, or conversations.json").required();
    import.option("--org", o.org, "name or id of the org").required();
    import.option("--user", o.user, "the user whose conversations they become").required();
    import.size("--file-bytes-max", o.file_bytes_max, "size of the file at most; it is held in memory");

    auto backup = cli.verb("backup", "copy the store while it runs, and verify the copy");
    store(backup, o);
    backup.option("DIR", o.dir, "new or empty folder for the copy").required();
    backup.flag("--json", o.json, "one JSON object");

    auto check = cli.verb("check", "read every value and what tables say of each other");
    store(check, o);
    get.option("--keys", o.keys_dir,
               "folder of the users' keys (default: keys in the store folder)");
    check.option("--keys", o.keys_dir,
                 "folder of the users' keys (default: keys in the store folder)");
    check.flag("--json", o.json, "one JSON object a line");
    check.option("--findings-max", o.findings_max, "findings to print");

    auto org = cli.verb("org", "organisations");
    auto org_create = org.verb("create", "make an org");
    admin(org_create, o);
    org_create.option("NAME", o.name, "its name, unique in this store").required();
    org_create.option("--weight", o.weight, "its share in the fair queue");
    org_create.option("--limits", o.limits, "JSON object of limits");
    org_create.duration("--retention", o.retention_ms,
                        "delete conversations that are idle for longer; 0 is never");
    auto org_update = org.verb("update", "change an org");
    admin(org_update, o);
    org_update.option("ORG", o.org, "name or id of the org").required();
    org_update.option("--weight", o.new_weight, "its share in the fair queue; 0 leaves it");
    org_update.option("--limits", o.new_limits, "JSON object of limits, instead of those it has");
    org_update.duration("--retention", o.retention_ms,
                        "delete conversations that are idle for longer; 0 leaves it");
    org_update.flag("--no-retention", o.no_retention, "delete none by themselves");
    org_update.option("--disabled", o.disabled, "refuse all its keys, or take them again")
        .choices({"yes", "no"});
    auto org_list = org.verb("list", "list the orgs");
    store(org_list, o);
    org_list.flag("--json", o.json, "one JSON object a line");

    auto key = cli.verb("key", "API keys");
    auto key_create = key.verb("create", "make a key and print it, this once");
    admin(key_create, o);
    key_create.option("--org", o.org, "name or id of the org").required();
    key_create.option("--user", o.user, "the user who is meant without x-user-id");
    key_create.option("--name", o.name, "a label");
    key_create.option("--scope", o.scopes, "allow only this; may be given again");
    key_create.option("--model", o.models, "allow only this model; may be given again");
    key_create.option("--class", o.service_class, "lower every request to this class")
        .choices({"streaming", "batch"});
    key_create.option("--limits", o.limits, "JSON object of limits");
    key_create.duration("--expires-in", o.expires_in_ms, "time until it expires; 0 is never");
    auto key_list = key.verb("list", "list the keys, without their secrets");
    store(key_list, o);
    key_list.flag("--json", o.json, "one JSON object a line");
    key_list.option("--org", o.org, "only of this org");
    auto key_update = key.verb("update", "change what a key may do");
    admin(key_update, o);
    key_update.option("KEY-ID", o.key_id, "key_…, as listed").required();
    key_update.option("--limits", o.new_limits, "JSON object of limits, instead of those it has");
    key_update.option("--scope", o.scopes, "allow only this from now on; may be given again");
    key_update.flag("--all-scopes", o.all_scopes, "allow every scope");
    key_update.option("--model", o.models, "allow only this model from now on; may be given again");
    key_update.flag("--all-models", o.all_models, "allow every model");
    key_update.duration("--expires-in", o.expires_in_ms, "time until it expires; 0 leaves it");
    key_update.flag("--no-expiry", o.no_expiry, "it never expires");
    auto key_rotate = key.verb("rotate", "print a new secret; the old one ends after a grace");
    admin(key_rotate, o);
    key_rotate.option("KEY-ID", o.key_id, "key_…, as listed").required();
    key_rotate.duration("--grace", o.grace_ms, "how long the old secret still works");
    auto key_revoke = key.verb("revoke", "refuse a key from now on");
    admin(key_revoke, o);
    key_revoke.option("KEY-ID", o.key_id, "key_…, as listed").required();

    auto user = cli.verb("user", "users who log in");
    auto user_create = user.verb("create", "make a user");
    admin(user_create, o);
    user_create.option("--org", o.org, "name or id of the org").required();
    user_create.option("--user", o.user, "the user's name").required();
    user_create.flag("--password-stdin", o.password_stdin,
                     "read the password, one line, from stdin");
    user_create.flag("--replace", o.replace, "give an existing user a new password");

    auto user_erase =
        user.verb("erase", "take away all that a user has, and destroy the key of it");
    admin(user_erase, o);
    user_erase.option("--org", o.org, "name or id of the org").required();
    user_erase.option("--user", o.user, "the user's name, or user_…").required();

    auto parsed = cli.parse(argc, argv);
    if (!parsed) return base::fail(parsed.error());
    o.parsed = std::move(*parsed);
    return o;
}

}  // namespace parley::convstore
