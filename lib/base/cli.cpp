#include "base/cli.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <set>

#include "base/log.hpp"
#include "base/text.hpp"

namespace parley::base {
namespace {

std::string upper_snake(std::string_view text) {
    std::string out;
    for (char c : text)
        out += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return out;
}

// What a TOML value would look like on the command line.
std::optional<std::vector<std::string>> as_arguments(const toml::node& node) {
    if (const auto* list = node.as_array()) {
        std::vector<std::string> out;
        for (const auto& item : *list) {
            auto one = as_arguments(item);
            if (!one || one->size() != 1) return std::nullopt;
            out.push_back((*one)[0]);
        }
        return out;
    }
    if (auto text = node.value_exact<std::string>()) return std::vector{*text};
    if (auto flag = node.value_exact<bool>())
        return std::vector<std::string>{*flag ? "true" : "false"};
    if (auto number = node.value_exact<int64_t>()) return std::vector{fmt::format("{}", *number)};
    if (auto real = node.value_exact<double>()) return std::vector{fmt::format("{}", *real)};
    return std::nullopt;
}

}  // namespace

struct Verb::Impl {
    CLI::App* app = nullptr;
    CLI::Option* last = nullptr;
    std::string name;
    std::string config;
    bool check_config = false;
    std::set<CLI::Option*> flag_only;
};

struct Cli::Impl {
    CLI::App app;
    std::vector<std::unique_ptr<Verb::Impl>> verbs;
    bool completion = false;

    Result<void> apply_file(const std::string& tool, Verb::Impl& verb, const std::string& path,
                            std::set<CLI::Option*>& from_file);
    CLI::Option* find(const Verb::Impl& verb, std::string_view key) const {
        for (CLI::Option* option : verb.app->get_options()) {
            if (option->check_lname(std::string(key)) && !verb.flag_only.count(option) &&
                key != "config" && key != "check-config" && key != "help")
                return option;
        }
        return nullptr;
    }
    bool known_somewhere(std::string_view key) const {
        for (const auto& verb : verbs) {
            if (find(*verb, key)) return true;
        }
        return false;
    }
    std::string completion_script(const std::string& tool) const;
    static void add_common(Verb::Impl& verb);
    // CLI11 reads the environment for every verb, also those not called; where two verbs fill one
    // variable, the other verb's environment would come after, and win over, this one's flag.
    void forget_environment_of_others(int argc, const char* const* argv) {
        std::string called;
        for (int i = 1; i < argc && argv[i][0] != '-'; ++i) {
            const std::string longer = called + (called.empty() ? "" : " ") + argv[i];
            bool known = false;
            for (const auto& verb : verbs) known |= verb->name == longer;
            if (!known) break;
            called = longer;
        }
        for (const auto& verb : verbs) {
            if (verb->name == called) continue;
            for (CLI::Option* option : verb->app->get_options()) option->envname("");
        }
    }
};

Cli::Cli(std::string tool, std::string summary)
    : tool_(std::move(tool)), impl_(std::make_unique<Impl>()) {
    impl_->app.name(tool_);
    impl_->app.description(summary + " (see " + tool_ + "(8) or (1))");
    impl_->app.require_subcommand(1);
    impl_->app.set_version_flag("--version", tool_ + " " PARLEY_VERSION,
                                "print the version and exit");
    impl_->app.set_help_flag("--help", "print this help and exit");
    impl_->app.add_flag("--completion", impl_->completion, "print the bash completion and exit");
    impl_->app.get_formatter()->column_width(34);
}

Cli::~Cli() = default;

void Cli::Impl::add_common(Verb::Impl& verb) {
    verb.app->add_option("--config", verb.config, "configuration file (TOML)");
    verb.app->add_flag("--check-config", verb.check_config,
                       "read options and configuration, do nothing, and exit 0 if they are good");
}

Verb Cli::verb(const std::string& name, const std::string& summary) {
    auto made = std::make_unique<Verb::Impl>();
    made->app = impl_->app.add_subcommand(name, summary);
    made->name = name;
    Cli::Impl::add_common(*made);
    impl_->verbs.push_back(std::move(made));
    return {this, impl_->verbs.back().get()};
}

Verb Verb::verb(const std::string& name, const std::string& summary) {
    auto made = std::make_unique<Verb::Impl>();
    made->app = impl_->app->add_subcommand(name, summary);
    made->name = impl_->name + " " + name;
    Cli::Impl::add_common(*made);
    impl_->app->require_subcommand(1);
    cli_->impl_->verbs.push_back(std::move(made));
    return {cli_, cli_->impl_->verbs.back().get()};
}

namespace {

template <class T>
CLI::Option* declare(CLI::App* app, const std::string& tool, const std::string& name, T& value,
                     const std::string& help) {
    CLI::Option* option = app->add_option(name, value, help);
    if constexpr (!std::is_same_v<T, std::vector<std::string>>) option->capture_default_str();
    if (name.rfind("--", 0) == 0) option->envname(upper_snake(tool + "-" + name.substr(2)));
    return option;
}

}  // namespace

#define PARLEY_OPTION(TYPE)                                                             \
    Verb& Verb::option(const std::string& name, TYPE& value, const std::string& help) { \
        impl_->last = declare(impl_->app, cli_->tool_, name, value, help);              \
        return *this;                                                                   \
    }
PARLEY_OPTION(std::string)
PARLEY_OPTION(uint16_t)
PARLEY_OPTION(uint32_t)
PARLEY_OPTION(uint64_t)
PARLEY_OPTION(int64_t)
PARLEY_OPTION(double)
PARLEY_OPTION(std::vector<std::string>)
#undef PARLEY_OPTION

Verb& Verb::flag(const std::string& name, bool& value, const std::string& help) {
    impl_->last = impl_->app->add_flag(name, value, help);
    impl_->last->envname(upper_snake(cli_->tool_ + "-" + name.substr(2)));
    return *this;
}

Verb& Verb::duration(const std::string& name, int64_t& ms, const std::string& help) {
    impl_->last = impl_->app->add_option_function<std::string>(
        name,
        [&ms, name](const std::string& text) {
            auto parsed = parse_duration_ms(text);
            if (!parsed) throw CLI::ValidationError(name, parsed.error().what);
            ms = *parsed;
        },
        help);
    impl_->last->type_name("DURATION")->default_str(show_duration_ms(ms));
    impl_->last->envname(upper_snake(cli_->tool_ + "-" + name.substr(2)));
    return *this;
}

Verb& Verb::size(const std::string& name, uint64_t& bytes, const std::string& help) {
    impl_->last = impl_->app->add_option_function<std::string>(
        name,
        [&bytes, name](const std::string& text) {
            auto parsed = parse_size(text);
            if (!parsed) throw CLI::ValidationError(name, parsed.error().what);
            bytes = *parsed;
        },
        help);
    impl_->last->type_name("SIZE")->default_str(fmt::format("{}", bytes));
    impl_->last->envname(upper_snake(cli_->tool_ + "-" + name.substr(2)));
    return *this;
}

Verb& Verb::required() {
    impl_->last->required();
    return *this;
}
Verb& Verb::env(const std::string& name) {
    impl_->last->envname(name);
    return *this;
}
Verb& Verb::choices(const std::vector<std::string>& allowed) {
    impl_->last->check(CLI::IsMember(allowed));
    return *this;
}
Verb& Verb::range(double least, double most) {
    impl_->last->check(CLI::Range(least, most));
    return *this;
}
Verb& Verb::flag_only() {
    impl_->last->envname("");
    impl_->flag_only.insert(impl_->last);
    return *this;
}

Result<void> Cli::Impl::apply_file(const std::string& tool, Verb::Impl& verb,
                                   const std::string& path, std::set<CLI::Option*>& from_file) {
    toml::table table;
    try {
        table = toml::parse_file(path);
    } catch (const toml::parse_error& error) {
        return fail(Errc::config, fmt::format("cannot read '{}': {} (line {})", path,
                                              error.description(), error.source().begin.line));
    }
    const auto apply = [&](std::string_view key, const toml::node& node, bool own) -> Result<void> {
        CLI::Option* option = find(verb, key);
        if (!option) {
            if (!own && known_somewhere(key)) return {};
            return fail(Errc::config,
                        fmt::format("unknown key '{}' in '{}': see {} --help", key, path, tool));
        }
        // A flag or the environment has already spoken, and ranks above the file.
        if (option->count() > 0 ||
            (!option->get_envname().empty() && ::getenv(option->get_envname().c_str())))
            return {};
        auto arguments = as_arguments(node);
        if (!arguments)
            return fail(Errc::config,
                        fmt::format("key '{}' in '{}' has a value of the wrong type", key, path));
        try {
            option->clear();
            for (const auto& argument : *arguments) option->add_result(argument);
            option->run_callback();
            from_file.insert(option);
        } catch (const CLI::Error& error) {
            return fail(Errc::config, fmt::format("key '{}' in '{}': {}", key, path, error.what()));
        }
        return {};
    };
    for (const auto& [key, node] : table) {
        if (const auto* inner = node.as_table()) {
            bool is_verb = false;
            for (const auto& other : verbs) is_verb |= other->name == key.str();
            if (!is_verb)
                return fail(Errc::config, fmt::format("unknown table '{}' in '{}': see {} --help",
                                                      key.str(), path, tool));
            if (verb.name != key.str()) continue;
            for (const auto& [inner_key, inner_node] : *inner) {
                if (auto done = apply(inner_key.str(), inner_node, true); !done) return done;
            }
        } else if (auto done = apply(key.str(), node, false); !done) {
            return done;
        }
    }
    return {};
}

std::string Cli::Impl::completion_script(const std::string& tool) const {
    std::string verbs_top;
    std::vector<const Verb::Impl*> nested_first;  // the case that fits first is taken
    for (const auto& verb : verbs) {
        if (verb->name.find(' ') != std::string::npos) {
            nested_first.insert(nested_first.begin(), verb.get());
        } else {
            nested_first.push_back(verb.get());
            verbs_top += (verbs_top.empty() ? "" : " ") + verb->name;
        }
    }
    const std::string function = "_" + upper_snake(tool);
    std::string out = fmt::format(
        R"(# bash completion for {0}, made by `{0} --completion`
{1}() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} at="" options="" verbs=""
    [ "$COMP_CWORD" -gt 1 ] && at=${{COMP_WORDS[1]}}
    [ "$COMP_CWORD" -gt 2 ] && at+=" ${{COMP_WORDS[2]}}"
    case $at in
        "") options="--help --version --completion" verbs="{2}" ;;
)",
        tool, function, verbs_top);
    for (const auto* verb : nested_first) {
        std::string options, names;
        for (const CLI::Option* option : verb->app->get_options()) {
            for (const auto& lname : option->get_lnames())
                options += (options.empty() ? "--" : " --") + lname;
        }
        for (const CLI::App* sub : verb->app->get_subcommands({}))
            names += (names.empty() ? "" : " ") + sub->get_name();
        out += fmt::format("        \"{0}\"|\"{0} \"*) options=\"{1}\" verbs=\"{2}\" ;;\n",
                           verb->name, options, names);
    }
    // An empty COMPREPLY means file names, by -o default.
    out += fmt::format(R"(    esac
    case $cur in -*) verbs=$options ;; esac
    COMPREPLY=($(compgen -W "$verbs" -- "$cur"))
}}
complete -o default -F {} {}
)",
                       function, tool);
    return out;
}

Result<Parsed> Cli::parse(int argc, const char* const* argv) {
    Parsed parsed;
    try {
        // --completion stands alone: it must not ask for a verb.
        if (argc == 2 && std::string_view(argv[1]) == "--completion") {
            const std::string script = impl_->completion_script(tool_);
            std::fwrite(script.data(), 1, script.size(), stdout);
            parsed.exit = 0;
            return parsed;
        }
        impl_->forget_environment_of_others(argc, argv);
        impl_->app.parse(argc, argv);
    } catch (const CLI::CallForVersion& error) {
        std::printf("%s\n", error.what());
        parsed.exit = 0;
        return parsed;
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) {  // help asked for
            CLI::App* at = &impl_->app;
            std::string path;
            while (!at->get_subcommands().empty()) {
                path += (path.empty() ? "" : " ") + at->get_name();
                at = at->get_subcommands().front();
            }
            const std::string help = at->help(path);
            std::fwrite(help.data(), 1, help.size(), stdout);
            parsed.exit = 0;
            return parsed;
        }
        // CLI11 looks for what is missing first, but a misspelt option is why it is missing; and it
        // lists all that is left over, the option's value before the option.
        if (dynamic_cast<const CLI::ExtrasError*>(&error) ||
            dynamic_cast<const CLI::RequiredError*>(&error)) {
            const std::vector<std::string> words = impl_->app.remaining(true);
            for (const std::string& word : words) {
                if (word.rfind('-', 0) == 0)
                    return fail(Errc::usage,
                                fmt::format("unknown option '{}' (see {} --help)", word, tool_));
            }
            CLI::App* at = &impl_->app;
            while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
            const bool verb_wanted = !at->get_subcommands({}).empty();
            if (!words.empty())
                return fail(Errc::usage,
                            fmt::format("{} '{}' (see {} --help)",
                                        verb_wanted ? "unknown verb" : "unexpected argument",
                                        words.front(), tool_));
        }
        return fail(Errc::usage, fmt::format("{} (see {} --help)", error.what(), tool_));
    }
    for (CLI::App* at = &impl_->app; !at->get_subcommands().empty();) {
        at = at->get_subcommands().front();
        parsed.verbs.push_back(at->get_name());
    }
    std::string full;
    for (const auto& verb : parsed.verbs) full += (full.empty() ? "" : " ") + verb;
    for (const auto& verb : impl_->verbs) {
        if (verb->name != full) continue;
        std::set<CLI::Option*> from_file;
        const std::string standard = "/etc/parley/" + tool_ + ".toml";
        if (!verb->config.empty()) {
            if (::access(verb->config.c_str(), R_OK) != 0)
                return fail(
                    Errc::config,
                    fmt::format("cannot read configuration '{}': no such file, or not readable",
                                verb->config));
            if (auto done = impl_->apply_file(tool_, *verb, verb->config, from_file); !done)
                return fail(done.error());
        } else if (::access(standard.c_str(), R_OK) == 0) {
            if (auto done = impl_->apply_file(tool_, *verb, standard, from_file); !done)
                return fail(done.error());
        }
        if (verb->check_config) parsed.exit = 0;
    }
    return parsed;
}

int report(std::string_view tool, const Error& error) {
    log(Level::error, fmt::format("{}.failed", tool),
        {{"code", name(error.code)}, {"what", error.what}});
    return exit_status(error.code);
}

}  // namespace parley::base
