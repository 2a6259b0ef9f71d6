// infer-worker: run one model and answer generation requests. See infer-worker(8).
#include "options.hpp"

int main(int argc, char** argv) {
    using namespace parley;
    auto options = infer_worker::parse_options(argc, argv);
    if (!options) return base::report("infer-worker", options.error());
    if (options->parsed.exit) return *options->parsed.exit;
    if (options->parsed.is("run")) return infer_worker::run(*options);
    if (options->parsed.is("bench")) return infer_worker::bench(*options);
    return infer_worker::serve(std::move(*options), argc, argv);
}
