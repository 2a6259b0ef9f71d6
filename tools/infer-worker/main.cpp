// infer-worker: run language models and answer generation requests. See infer-worker(8).
#include "control.hpp"
#include "inspect.hpp"
#include "options.hpp"

namespace {

int tokenize(const parley::infer_worker::Options& o) {
    parley::infer_worker::TokenizeOptions to;
    to.model = o.model;
    to.chat_template = o.chat_template;
    for (const auto& word : o.words) to.text = to.text ? *to.text + " " + word : word;
    to.input = o.input;
    to.json = o.json;
    to.special = o.special;
    to.decode = o.decode;
    to.messages = o.messages;
    return parley::infer_worker::run_tokenize(to);
}

}  // namespace

int main(int argc, char** argv) {
    using namespace parley;
    auto options = infer_worker::parse_options(argc, argv);
    if (!options) return base::report("infer-worker", options.error());
    if (options->parsed.exit) return *options->parsed.exit;
    if (options->parsed.is("run")) return infer_worker::run(*options);
    if (options->parsed.is("bench")) return infer_worker::bench(*options);
    if (options->parsed.is("info")) return infer_worker::run_info(options->model, options->json);
    if (options->parsed.is("tokenize")) return tokenize(*options);
    if (options->parsed.is("load") || options->parsed.is("unload") || options->parsed.is("models"))
        return infer_worker::command(*options);
    return infer_worker::serve(std::move(*options), argc, argv);
}
