// bench_stub_stage: the answering stage of tests/bench/front_overhead.py, which costs as little as a stage can:
// every request gets the same short answer at once, from no model. It stands for nothing but itself.
//
//   bench_stub_stage ENDPOINT     binds there and answers until it is killed
#include <cstdio>

#include "messages/events.hpp"
#include "pipe/answerer.hpp"
#include "pipe/context.hpp"
#include "pipe/loop.hpp"

using namespace parley;

namespace {

class Stub final : public pipe::AnswererHandler {
  public:
    Stub() {
        using messages::EventWriter;
        messages::Usage usage;
        usage.input_tokens = 10;
        messages::Stop stop;
        stop.reason = messages::StopReason::max_tokens;
        events_[0] = EventWriter::message_start("msg_1", "stub", usage);
        events_[1] = EventWriter::text_block_start(0);
        events_[2] = EventWriter::text_delta(0, "ok");
        events_[3] = EventWriter::block_stop(0);
        usage.output_tokens = 1;
        events_[4] = EventWriter::message_delta(stop, usage);
        events_[5] = EventWriter::message_stop();
    }
    void serve(pipe::Answerer& answerer) { answerer_ = &answerer; }

    void on_ask(pipe::Ask ask) override {
        for (size_t i = 0; i < std::size(events_); ++i) {
            pipe::EventMeta meta;
            if (i == 2) meta.ids = {1};
            (void)answerer_->event(ask.id, std::move(meta), events_[i]);
        }
        pipe::EndMeta end;
        end.usage = pipe::Usage{10, 0, 1};
        answerer_->end(ask.id, std::move(end));
    }
    void on_cancel(const std::string&, uint32_t, pipe::Cancel) override {}

  private:
    pipe::Answerer* answerer_ = nullptr;
    std::string events_[6];
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fputs("usage: bench_stub_stage ENDPOINT\n", stderr);
        return 64;
    }
    pipe::Context context;
    pipe::AnswererOptions options;
    options.link.endpoint = argv[1];
    options.link.bind = true;
    options.link.hello.name = "stub";
    Stub stub;
    auto answerer = pipe::Answerer::open(context, options, stub);
    if (!answerer) {
        std::fprintf(stderr, "bench_stub_stage: %s\n", answerer.error().what.c_str());
        return 1;
    }
    stub.serve(**answerer);
    pipe::Loop loop;
    loop.add((*answerer)->link());
    loop.run();
}
