// Where a user wants to be told of answers that wait.
#include "store/batch.hpp"

namespace parley::store {

namespace {
constexpr size_t kSettingsMax = 64u << 10;
}

Step do_notifications_set(Batch& batch, Fields& f) {
    Ulid org, user;
    std::string user_name, notifications;
    std::optional<std::string> was;
    f.id("org", kOrg, org).id("user", kUser, user).text("user_name", user_name, true);
    f.raw("notifications", notifications, RawKind::object).text("was", was);
    if (!f.ok()) return refuse(Errc::invalid, f.error());
    if (notifications.empty()) return refuse(Errc::invalid, "notifications should be an object");
    if (notifications.size() > kSettingsMax)
        return refuse(Errc::too_large, "notifications are at most 64 KiB");
    if (user_name.size() > 128 || user != user_id(org, user_name))
        return refuse(Errc::invalid, "user is not the id of user_name in this org");
    auto owner = batch.has(Table::org, keys::of(org));
    if (!owner) return refuse(owner.error());
    if (!*owner) return refuse(Errc::not_found, "no such org");
    auto row = batch.find<UserRow>(Table::user, keys::of(user));
    if (!row) return refuse(row.error());
    UserRow next;
    if (*row) {
        next = **row;
    } else {
        next.id = user;
        next.org = org;
        next.name = user_name;
        next.created_ms = batch.now_ms();
    }
    if (was && *was != next.notifications)
        return refuse(Errc::conflict, "the notifications were changed by another", "changed");
    next.notifications = notifications;
    if (auto done = batch.put(Table::user, keys::of(user), to_json(next)); !done)
        return refuse(done.error());
    if (auto done = batch.change("user.notifications", org, {}, member("of", show_id(kUser, user)));
        !done)
        return refuse(done.error());
    return Said{};
}

}  // namespace parley::store
