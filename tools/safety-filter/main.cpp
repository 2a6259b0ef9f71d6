// safety-filter: judge what goes to a model and what comes from it. See safety-filter(8).
#include <csignal>

#include "base/signals.hpp"
#include "options.hpp"

int main(int argc, char** argv) {
    using namespace parley;
    base::Cli cli("safety-filter", "judge requests to a model and its answers");
    safety_filter::Options options;
    auto parsed = safety_filter::parse(cli, options, argc, argv);
    if (!parsed) return base::report("safety-filter", parsed.error());
    if (parsed->exit) return *parsed->exit;
    if (parsed->is("run")) return safety_filter::run(options);
    if (parsed->is("check")) return safety_filter::check(options);
    if (parsed->is("eval")) return safety_filter::eval(options);
    if (parsed->is("train")) return safety_filter::train(options);
    return safety_filter::serve(options, argc, argv);
}
