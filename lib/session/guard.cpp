#include "session/guard.hpp"

#include <arpa/inet.h>

#include <algorithm>

namespace parley::session {

std::string address_key(std::string_view address) {
    const std::string text(address);
    in6_addr six{};
    if (inet_pton(AF_INET6, text.c_str(), &six) != 1) return text;
    if (IN6_IS_ADDR_V4MAPPED(&six)) return text.substr(text.rfind(':') + 1);
    return "6/" + std::string(reinterpret_cast<const char*>(six.s6_addr), 8);
}

int64_t Guard::wait_of(const Table& table, const std::string& key, uint32_t free,
                       int64_t now_ms) const {
    const auto found = table.find(key);
    if (found == table.end()) return 0;
    const Entry& entry = found->second;
    if (entry.failures < free || now_ms - entry.last_ms >= options_.forget_ms) return 0;
    const uint32_t doublings = std::min<uint32_t>(entry.failures - free, 30);
    const int64_t wait = std::min<int64_t>(options_.wait_max_ms, int64_t{1000} << doublings);
    return std::max<int64_t>(0, entry.last_ms + wait - now_ms);
}

int64_t Guard::wait_ms(std::string_view name, std::string_view address, int64_t now_ms) const {
    return std::max(wait_of(names_, std::string(name), options_.name_free, now_ms),
                    wait_of(addresses_, address_key(address), options_.address_free, now_ms));
}

void Guard::count(Table& table, const std::string& key, int64_t now_ms) {
    if (table.size() >= options_.entries_max && !table.count(key)) {
        std::erase_if(table, [&](const auto& item) {
            return now_ms - item.second.last_ms >= options_.forget_ms;
        });
        if (table.size() >= options_.entries_max)
            table.erase(std::min_element(table.begin(), table.end(), [](auto& a, auto& b) {
                return a.second.last_ms < b.second.last_ms;
            }));
    }
    Entry& entry = table[key];
    if (now_ms - entry.last_ms >= options_.forget_ms) entry.failures = 0;
    entry.failures = std::min<uint32_t>(entry.failures + 1, 1'000'000);
    entry.last_ms = now_ms;
}

void Guard::attempt(std::string_view name, std::string_view address, int64_t now_ms) {
    count(names_, std::string(name), now_ms);
    count(addresses_, address_key(address), now_ms);
}

void Guard::succeeded(std::string_view name, std::string_view address) {
    names_.erase(std::string(name));
    const auto found = addresses_.find(address_key(address));
    if (found == addresses_.end()) return;
    if (--found->second.failures == 0) addresses_.erase(found);
}

}  // namespace parley::session
