#include "notify/presence.hpp"

#include <chrono>
#include <filesystem>
#include <fstream>

#include "base/file.hpp"

namespace parley::notify {

namespace fs = std::filesystem;

void write_presence(const std::string& run_dir, const std::string& boot,
                    const std::vector<store::Ulid>& users) {
    const std::string path = run_dir + "/present." + boot;
    {
        // No sync: it is worth nothing after a crash.
        std::ofstream file(path + ".tmp", std::ios::trunc);
        for (const store::Ulid& user : users) file << user.text() << '\n';
        if (!file) return;
    }
    std::error_code ignored;
    fs::rename(path + ".tmp", path, ignored);
}

std::set<store::Ulid> read_presence(const std::string& run_dir) {
    std::set<store::Ulid> out;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(run_dir, error)) {
        const std::string name = entry.path().filename();
        if (!name.starts_with("present.") || name.ends_with(".tmp")) continue;
        const auto age = fs::file_time_type::clock::now() - entry.last_write_time(error);
        if (error) continue;
        if (age > std::chrono::milliseconds(kFreshMs)) {
            if (age > std::chrono::minutes(10)) fs::remove(entry.path(), error);
            continue;
        }
        std::ifstream file(entry.path());
        std::string line;
        while (std::getline(file, line))
            if (const auto id = store::Ulid::parse(line)) out.insert(*id);
    }
    return out;
}

}  // namespace parley::notify
