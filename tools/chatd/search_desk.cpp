#include "search_desk.hpp"

namespace parley::chatd {

base::Result<search::Index*> SearchDesk::open() {
    if (index_) {
        if (auto fresh = index_->refresh(); !fresh) {
            index_.reset();
            return base::fail(fresh.error());
        }
        return index_.get();
    }
    auto opened = search::Index::open(dir_);
    if (!opened) return base::fail(opened.error());
    index_ = std::move(*opened);
    return index_.get();
}

bool SearchDesk::run(Work work, std::function<void()> done) {
    return thread_.run([this, work = std::move(work)] { work(open()); }, std::move(done));
}

}  // namespace parley::chatd
