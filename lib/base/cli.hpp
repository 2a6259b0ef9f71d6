// Cli: one command line for all six tools: verbs, long options, environment, file, help,
// completion.
//
// Precedence  flag, then environment, then file, then the default standing in the variable.
//             The environment name of `--bind` of chatd is CHATD_BIND unless env() gives another.
//             The file is --config FILE (TOML; keys are long option names without dashes in front:
//             drain-timeout = "10s"), else /etc/parley/TOOL.toml where it exists. An unknown key, a
//             key of the wrong type, or an unreadable file that was named is an error (78).
//             A verb's keys may stand at top level or in a [VERB] table; top-level keys must be
//             known to some verb of the tool.
//             --check-config, on every verb, stops after all of this: exit 0, or the error.
// Errors      usage → 64, configuration → 78. parse() prints nothing but help, version, completion.
// Reload      parse() again into fresh variables: all or nothing.
// Threads     one.
//
//   base::Cli cli("chatd", "HTTP front of parley");
//   auto serve = cli.verb("serve", "answer clients");
//   serve.option("--bind", o.bind, "address to listen on").duration("--drain-timeout", o.drain_ms,
//   "…"); auto parsed = cli.parse(argc, argv);
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace parley::base {

class Cli;

class Verb {
  public:
    // `name` is "--long-name" for an option, "NAME" for a positional. Help says unit and meaning;
    // the default is shown by itself.
    Verb& option(const std::string& name, std::string& value, const std::string& help);
    Verb& option(const std::string& name, uint16_t& value, const std::string& help);
    Verb& option(const std::string& name, uint32_t& value, const std::string& help);
    Verb& option(const std::string& name, uint64_t& value, const std::string& help);
    Verb& option(const std::string& name, int64_t& value, const std::string& help);
    Verb& option(const std::string& name, double& value, const std::string& help);
    Verb& option(const std::string& name, std::vector<std::string>& value, const std::string& help);
    Verb& flag(const std::string& name, bool& value, const std::string& help);
    Verb& duration(const std::string& name, int64_t& ms, const std::string& help);  // "10s"
    Verb& size(const std::string& name, uint64_t& bytes, const std::string& help);  // "32MiB"
    // They change the option declared last.
    Verb& required();
    Verb& env(const std::string& name);                      // instead of TOOL_NAME
    Verb& choices(const std::vector<std::string>& allowed);  // anything else is a usage error
    Verb& range(double least, double most);
    Verb& flag_only();  // neither environment nor file
    // A nested verb: `convstore org create`.
    Verb verb(const std::string& name, const std::string& summary);

  private:
    friend class Cli;
    struct Impl;
    Verb(Cli* cli, Impl* impl) : cli_(cli), impl_(impl) {}
    Cli* cli_;
    Impl* impl_;
};

struct Parsed {
    std::vector<std::string> verbs;  // {"org", "create"}
    std::optional<int> exit;         // set after --help, --version, …: stop with this
    bool is(std::string_view verb) const { return verbs.size() == 1 && verbs[0] == verb; }
    bool is(std::string_view verb, std::string_view nested) const {
        return verbs.size() == 2 && verbs[0] == verb && verbs[1] == nested;
    }
};

class Cli {
  public:
    Cli(std::string tool, std::string summary);
    ~Cli();
    Cli(const Cli&) = delete;
    Cli& operator=(const Cli&) = delete;

    Verb verb(const std::string& name, const std::string& summary);
    Result<Parsed> parse(int argc, const char* const* argv);
    const std::string& tool() const { return tool_; }

  private:
    friend class Verb;
    struct Impl;
    std::string tool_;
    std::unique_ptr<Impl> impl_;
};

// "TOOL: what" on stderr as one log line; returns the sysexits status. The one way out of a main().
int report(std::string_view tool, const Error& error);

}  // namespace parley::base
