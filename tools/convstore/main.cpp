// convstore: the store, its only writer, and what follows its log. See convstore(8).
#include "base/log.hpp"
#include "options.hpp"

int main(int argc, char** argv) {
    using namespace parley;
    auto options = convstore::parse_options(argc, argv);
    if (!options) return base::report("convstore", options.error());
    const base::Parsed& parsed = options->parsed;
    if (parsed.exit) return *parsed.exit;
    if (parsed.is("get")) return convstore::get(*options);
    if (parsed.is("tail")) return convstore::tail(*options);
    if (parsed.is("index")) return convstore::index(*options);
    if (parsed.is("notify")) return convstore::notify(*options);
    if (parsed.is("search")) return convstore::search(*options);
    if (parsed.is("export")) return convstore::export_rows(*options);
    if (parsed.is("import")) return convstore::import(*options);
    if (parsed.is("backup")) return convstore::backup(*options);
    if (parsed.is("check")) return convstore::check(*options);
    if (parsed.is("org", "create")) return convstore::org_create(*options);
    if (parsed.is("org", "update")) return convstore::org_update(*options);
    if (parsed.is("org", "list")) return convstore::org_list(*options);
    if (parsed.is("key", "create")) return convstore::key_create(*options);
    if (parsed.is("key", "list")) return convstore::key_list(*options);
    if (parsed.is("key", "update")) return convstore::key_update(*options);
    if (parsed.is("key", "rotate")) return convstore::key_rotate(*options);
    if (parsed.is("key", "revoke")) return convstore::key_revoke(*options);
    if (parsed.is("user", "create")) return convstore::user_create(*options);
    if (parsed.is("user", "erase")) return convstore::user_erase(*options);
    return convstore::serve(std::move(*options), argc, argv);
}
