// Answers in the making: journal, end, change of owner.
#include <algorithm>

#include "store/batch.hpp"

namespace parley::store {
namespace {

tl::expected<StreamRow, Refusal> need_stream(Batch& batch, const Ulid& message) {
    auto row = batch.need<StreamRow>(Table::stream, keys::of(message), "no such stream");
    if (!row) return refuse(row.error());
    if (auto done = fill_position(batch.env(), batch.txn(), *row); !done)
        return refuse(done.error());
    batch.subject = row->user;
    return std::move(*row);
}

tl::unexpected<Refusal> fenced(const StreamRow& row) {
    return refuse(Errc::conflict, "the stream has another owner or epoch", "fenced",
                  member("epoch", row.epoch) + member("owner", row.owner));
}
tl::unexpected<Refusal> ended(const std::string& status) {
    return refuse(Errc::conflict, "the answer has ended", "ended", member("status", status));
}

// The answer's row; nothing when its conversation was deleted meanwhile.
Result<std::optional<MessageRow>> live_message(Batch& batch, const StreamRow& stream) {
    auto conv = batch.has(Table::conv, keys::of(stream.conv));
    if (!conv) return fail(conv.error());
    if (!*conv) return std::optional<MessageRow>{};
    auto row = batch.need<MessageRow>(Table::msg, keys::msg(stream.conv, stream.id),
                                      "stream without its message");
    if (!row) return fail(row.error());
    return std::optional<MessageRow>(std::move(*row));
}

Result<void> put_message(Batch& batch, const MessageRow& row) {
    return batch.put(Table::msg, keys::msg(row.conv, row.id), to_json(row));
}
Result<void> put_stream(Batch& batch, const StreamRow& row) {
    return batch.put(Table::stream, keys::of(row.id), to_json(row));
}

std::string where(const StreamRow& stream) {
    return member("conversation", show_id(kConv, stream.conv)) +
           member("message", show_id(kMsg, stream.id)) + member("epoch", stream.epoch);
}

}  // namespace

Step do_append(Batch& batch, Fields& f) {
    Ulid message;
    std::string owner;
    DeltaRow delta;
    f.id("message", kMsg, message).text("owner", owner, true).number("epoch", delta.epoch);
    f.number("first_seq", delta.first_seq)
        .number("last_seq", delta.last_seq)
        .number("block", delta.block);
    f.text("block_type", delta.block_type).number("offset", delta.offset).text("text", delta.text);
    f.list("ids", delta.ids).raw("data", delta.data);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (delta.first_seq == 0 || delta.last_seq < delta.first_seq || delta.block < 0)
        return refuse(Errc::invalid,
                      "first_seq should be 1 at least, last_seq not below it, block not negative");
    auto stream = need_stream(batch, message);
    if (!stream) return tl::unexpected(stream.error());
    if (stream->state == "ended") return ended("ended");
    if (stream->epoch != delta.epoch || stream->owner != owner) return fenced(*stream);
    const auto reply = [&](uint32_t last_seq, uint64_t bytes) {
        return Said{member("last_seq", last_seq) + member("bytes", bytes), {}};
    };
    if (delta.last_seq <= stream->last_seq) return reply(stream->last_seq, stream->block_bytes);
    const uint64_t expected = delta.block == stream->block ? stream->block_bytes : 0;
    if (delta.first_seq <= stream->last_seq || delta.block < stream->block ||
        delta.offset != expected)
        return refuse(Errc::conflict, "the piece does not follow the journal's end", "gap",
                      member("last_seq", stream->last_seq) +
                          member_raw("block", std::to_string(stream->block)) +
                          member("offset", stream->block_bytes));
    auto row = live_message(batch, *stream);
    if (!row) return refuse(row.error());
    if (!*row) return refuse(Errc::not_found, "the conversation was deleted");

    delta.tokens = stream->tokens + delta.ids.size();
    if (auto done = batch.put(Table::sdelta, keys::sdelta(message, delta.epoch, delta.last_seq),
                              to_json(delta));
        !done)
        return refuse(done.error());
    if (stream->state != "running") {
        stream->state = "running";
        (*row)->status = "streaming";
        if (auto done = put_stream(batch, *stream); !done) return refuse(done.error());
        if (auto done = put_message(batch, **row); !done) return refuse(done.error());
    }
    return reply(delta.last_seq, delta.offset + delta.text.size());
}

Step do_finish(Batch& batch, Fields& f) {
    Ulid message;
    std::string owner, status, stop_reason, model, usage = "null", error = "null";
    std::optional<std::string> content;
    uint32_t epoch = 0;
    UsageEntry entry;
    f.id("message", kMsg, message)
        .text("owner", owner, true)
        .number("epoch", epoch)
        .text("status", status, true);
    f.text("stop_reason", stop_reason).raw("content", content, RawKind::array).text("model", model);
    f.raw("usage", usage, RawKind::object)
        .raw("error", error)
        .number("input_tokens", entry.input_tokens);
    f.number("output_tokens", entry.output_tokens).number("cached_tokens", entry.cached_tokens);
    f.number("compute_us", entry.compute_us)
        .text("key_id", entry.key_id)
        .text("request_id", entry.request_id);
    f.text("service_class", entry.service_class);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    static constexpr std::string_view kEnds[] = {"done", "cancelled", "interrupted", "blocked",
                                                 "failed"};
    if (std::ranges::find(kEnds, status) == std::end(kEnds))
        return refuse(Errc::invalid,
                      "status should be done, cancelled, interrupted, blocked or failed");
    auto stream = need_stream(batch, message);
    if (!stream) return tl::unexpected(stream.error());
    auto found = live_message(batch, *stream);
    if (!found) return refuse(found.error());
    std::optional<MessageRow>& row = *found;

    const bool over =
        stream->state == "ended" || (stream->state == "interrupted" && status == "interrupted");
    if (over && stream->epoch == epoch && row && row->status == status)
        return Said{member_raw("replayed", "true") + member_raw("message", to_json(*row)), {}};
    if (stream->state == "ended") return ended(row ? row->status : "deleted");
    if (stream->epoch != epoch || stream->owner != owner) return fenced(*stream);

    if (!content) {
        auto folded = fold_journal(batch.env(), batch.txn(), message);
        if (!folded) return refuse(folded.error());
        content = std::move(*folded);
    }
    std::optional<MessageRow> blocked_question;
    if (status == "blocked" && row) {
        auto question =
            batch.find<MessageRow>(Table::msg, keys::msg(stream->conv, stream->user_message));
        if (!question) return refuse(question.error());
        blocked_question = std::move(*question);
    }

    const uint64_t output_tokens = entry.output_tokens;
    entry.input_tokens -= std::min(entry.input_tokens, stream->charged_input);
    entry.output_tokens -= std::min(entry.output_tokens, stream->charged_output);
    entry.org = stream->org;
    entry.user = stream->user;
    entry.conv = stream->conv;
    entry.message = message;
    entry.model = model.empty() ? stream->model : model;
    entry.status = status;
    entry.final = status != "interrupted";
    stream->charged_input += entry.input_tokens;
    stream->charged_output += entry.output_tokens;
    stream->state = entry.final ? "ended" : "interrupted";
    stream->ended_ms = entry.final ? batch.now_ms() : 0;
    if (auto done = add_usage(batch, entry); !done) return refuse(done.error());
    if (auto done = put_stream(batch, *stream); !done) return refuse(done.error());
    if (!row) {
        if (auto done = batch.change("message.finished", stream->org, {},
                                     where(*stream) + member("status", "deleted"));
            !done)
            return refuse(done.error());
        return Said{member_raw("replayed", "false") + member_raw("deleted", "true") +
                        member_raw("message", "null"),
                    {}};
    }
    row->status = status;
    row->stop_reason = stop_reason;
    row->content = *content;
    if (usage != "null") row->usage = usage;
    row->error = error;
    if (!model.empty()) row->model = model;
    row->token_count = output_tokens;
    row->finished_ms = batch.now_ms();
    if (auto done = put_message(batch, *row); !done) return refuse(done.error());
    if (blocked_question) {
        blocked_question->status = "blocked";
        if (auto done = put_message(batch, *blocked_question); !done) return refuse(done.error());
    }
    if (auto done = batch.change("message.finished", stream->org, stream->user,
                                 where(*stream) + member("status", status) +
                                     member("stop_reason", stop_reason) +
                                     member("output_tokens", output_tokens));
        !done)
        return refuse(done.error());
    return Said{member_raw("replayed", "false") + member_raw("message", to_json(*row)), {}};
}

Step do_take_over(Batch& batch, Fields& f) {
    Ulid message;
    uint32_t epoch = 0;
    std::string owner;
    bool resume = false;
    f.id("message", kMsg, message)
        .number("epoch", epoch)
        .text("owner", owner, true)
        .flag("resume", resume);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (owner.empty() || owner.size() > 1024)
        return refuse(Errc::invalid, "owner should have 1 to 1024 bytes");
    auto stream = need_stream(batch, message);
    if (!stream) return tl::unexpected(stream.error());
    auto found = live_message(batch, *stream);
    if (!found) return refuse(found.error());
    std::optional<MessageRow>& row = *found;
    if (stream->state == "ended") return ended(row ? row->status : "deleted");
    if (stream->epoch != epoch) return fenced(*stream);
    auto content = fold_journal(batch.env(), batch.txn(), message);
    if (!content) return refuse(content.error());

    // What was generated is charged now: a continuation's finish takes it off again.
    if (stream->tokens > stream->charged_output) {
        UsageEntry entry;
        entry.org = stream->org;
        entry.user = stream->user;
        entry.conv = stream->conv;
        entry.message = message;
        entry.model = stream->model;
        entry.status = "interrupted";
        entry.output_tokens = stream->tokens - stream->charged_output;
        entry.final = false;
        if (auto done = add_usage(batch, entry); !done) return refuse(done.error());
        stream->charged_output = stream->tokens;
    }
    stream->epoch = epoch + 1;
    stream->owner = owner;
    stream->last_seq = 0;
    stream->state = !row ? "ended" : resume ? "running" : "interrupted";
    if (!row) stream->ended_ms = batch.now_ms();
    if (auto done = put_stream(batch, *stream); !done) return refuse(done.error());
    if (row) {
        row->status = resume ? "streaming" : "interrupted";
        row->content = *content;
        row->token_count = stream->tokens;
        if (auto done = put_message(batch, *row); !done) return refuse(done.error());
    }
    if (auto done = batch.change("message.taken_over", stream->org, stream->user,
                                 where(*stream) + member("status", row ? row->status : "deleted"));
        !done)
        return refuse(done.error());
    return Said{member("epoch", stream->epoch) + member("tokens", stream->tokens) +
                    member_raw("stream", show_stream(*stream)) +
                    member_raw("message", row ? to_json(*row) : "null"),
                {}};
}

}  // namespace parley::store
